"""How a random file is drawn: as a row of whole numbers, which can be drawn again, and made smaller."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")

Script = tuple[int, ...]
"""What was drawn, in order; 0 is the simplest choice."""


class Choices:
    """Draws at random, or what a script says: 0 behind its end."""

    def __init__(self, drawn_from: random.Random | Script) -> None:
        self._from = drawn_from
        self._taken: list[int] = []

    @property
    def script(self) -> Script:
        """What was drawn so far."""
        return tuple(self._taken)

    def whole(self, low: int, high: int) -> int:
        """A whole number; both ends are included, and `low` is the simplest."""
        if isinstance(self._from, random.Random):
            number = self._from.randint(0, high - low)
        else:
            at = len(self._taken)
            number = min(self._from[at], high - low) if at < len(self._from) else 0
        self._taken.append(number)
        return low + number

    def one(self, options: Sequence[T]) -> T:
        """One of these, of which the first is the simplest."""
        return options[self.whole(0, len(options) - 1)]

    def chance(self, percent: int) -> bool:
        """True in so many cases of a hundred; False is the simplest."""
        return self.whole(0, 99) >= 100 - percent

    def some(self, options: Sequence[T]) -> list[T]:
        """A part of the options that is neither empty nor all of them, in order."""
        taken = [self.chance(40) for _ in options]
        if not any(taken):
            taken[-1] = True
        if all(taken):
            taken[0] = False
        return [one for one, is_in in zip(options, taken, strict=True) if is_in]


def simplest(script: Script, fails: Callable[[Script], bool], tries: int) -> Script:
    """A script of which as much as possible is 0, and which still fails; found with so many tries at most."""
    size = max(1, len(script) // 2)
    while size:
        for begin in range(0, len(script), size):
            made = (*script[:begin], *(0 for _ in script[begin : begin + size]), *script[begin + size :])
            if made == script or not tries:
                continue
            tries -= 1
            if fails(made):
                script = made
        size //= 2
    return script
