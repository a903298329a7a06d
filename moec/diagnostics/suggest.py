"""Which known name did somebody mean who wrote an unknown one?"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher

from moec.diagnostics.types import Fix, Span

CLOSE_ENOUGH = 0.6
LONGEST = 64
"""Longer words are not compared: nobody mistypes them, and comparing takes quadratic time."""


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known name nearest to `word`, or None if none is near; ties go to the first in the alphabet."""
    if len(word) > LONGEST:
        return None
    best: tuple[float, str] | None = None
    for name in sorted(set(known)):
        likeness = SequenceMatcher(None, word.lower(), name.lower()).ratio()
        # of short names one letter in two is a large part: an exchange or an omission still counts
        near = likeness >= CLOSE_ENOUGH or sorted(word.lower()) == sorted(name.lower())
        if near and (best is None or likeness > best[0]):
            best = (likeness, name)
    return best[1] if best else None


def did_you_mean(word: str, known: Iterable[str], span: Span | None) -> Fix | None:
    """A fix that puts the nearest known name in the place of `word`, if one is near."""
    name = closest(word, known)
    return Fix(f"did you mean `{name}`?", span, name if span else None) if name else None
