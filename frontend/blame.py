"""Where to point when something is wrong inside of a definition: at the argument that brought it there, if any.

A message about `top_k(p, k)` in the standard library helps little; the `9` that the user wrote for `k` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from moec.diagnostics import Label, Span
from moec.frontend.mistake import Mistake
from moec.frontend.modules import STANDARD, Known


@dataclass(frozen=True)
class Use:
    """A call of a definition that is being expanded."""

    known: Known
    span: Span

    @property
    def label(self) -> Label:
        return Label(self.span, f"in this use of `{self.known.definition.name.text}`")


def placed(mistake: Mistake, uses: tuple[Use, ...], origins: Mapping[str, Span]) -> Mistake:
    """The mistake with its labels in the best order.

    `uses` are the calls that led here, outermost first; `origins` says where each parameter's value was written.
    """
    if not uses:
        return mistake
    blamed = mistake.span
    origin = origins.get(blamed.text)
    if origin is not None:
        led = [use.label for use in uses if not _within(origin, use.span)]
        also = [Label(blamed, f"as `{blamed.text}`, used here"), *mistake.also, *led]
        return replace(mistake, span=origin, also=also)
    labels = [use.label for use in uses]
    if blamed.source.name.startswith(STANDARD):
        first, *inner = labels
        also = [Label(blamed, mistake.label or "here"), *mistake.also, *inner]
        return replace(mistake, span=first.span, label=first.text, also=also)
    return replace(mistake, also=[*mistake.also, *labels])


def _within(inner: Span, outer: Span) -> bool:
    return inner.source is outer.source and outer.start <= inner.start and inner.end <= outer.end
