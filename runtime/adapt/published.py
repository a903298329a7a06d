"""Which build of a layer runs a call: an immutable choice by the number of tokens, replaced in one store.

A call reads `PackedWeights.published` once and holds the build that it chose until it returns, so that a build which is
replaced meanwhile lives as long as a call uses it, and not longer.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from moec.runtime.native import Kernel, layout

BASE = "base"
"""The name of the build that was compiled ahead."""


class Probe(Protocol):
    """Is told of every call of a build."""

    def seen(self, inputs: Sequence[torch.Tensor], nanoseconds: int) -> None:
        """A call on `inputs` has taken so long.  Called by any thread, before its call returns; must not raise."""


@dataclass(frozen=True, eq=False)
class Build:
    """Kernels, and packed weights in their order.

    name    "base", or that of the specialisation
    number  tells builds of a layer apart in statistics: 0 is the base
    packed  u8; the layer's own buffer, or one that this build alone uses
    probe   is told of each call; None: nobody asks
    lender  the layer's own buffer where `packed` holds only what is not read there; None: it holds all
    """

    name: str
    number: int
    kernel: Kernel
    packed: torch.Tensor
    probe: Probe | None = None
    lender: torch.Tensor | None = None

    @property
    def nbytes(self) -> int:
        """Of `packed`, without what is read in the lender's."""
        adoption = layout(self.kernel).adoption
        return self.packed.numel() - (adoption.shared if self.lender is not None and adoption is not None else 0)

    def pick(self) -> Build:
        return self


class Trial:
    """Two builds that take turns, to be compared on the same traffic."""

    def __init__(self, old: Build, new: Build) -> None:
        self.old, self.new = old, new
        self._turns = itertools.cycle((new, old))  # `next` of it is one step of the interpreter: calls may race

    def pick(self) -> Build:
        return next(self._turns)


@dataclass(frozen=True, eq=False)
class Overlay:
    """What runs calls of `first` to `last` tokens, or of more where `last` is None."""

    first: int
    last: int | None
    runs: Build | Trial

    @property
    def builds(self) -> tuple[Build, ...]:
        return (self.runs,) if isinstance(self.runs, Build) else (self.runs.old, self.runs.new)

    def covers(self, tokens: int) -> bool:
        return self.first <= tokens and (self.last is None or tokens <= self.last)


class Published:
    """What calls run.  Where overlays meet, the later one is chosen; where there is none, the base."""

    def __init__(self, base: Build, overlays: Sequence[Overlay] = ()) -> None:
        self.base = base
        self.overlays = tuple(overlays)
        edges = {0}
        for overlay in overlays:
            edges.add(overlay.first)
            if overlay.last is not None:
                edges.add(overlay.last + 1)
        starts = sorted(edges)
        self._bounds = tuple(starts[1:])
        self._choices = tuple(self._top(start) for start in starts)

    def choose(self, tokens: int) -> Build:
        """The build for a call of so many tokens; in a trial the two take turns."""
        return self._choices[bisect_right(self._bounds, tokens)].pick()

    def at(self, tokens: int) -> Build:
        """The same without taking a turn: in a trial the old build."""
        found = self._choices[bisect_right(self._bounds, tokens)]
        return found if isinstance(found, Build) else found.old

    @property
    def ranges(self) -> tuple[Overlay, ...]:
        """What runs which numbers of tokens: from 0 on, without gaps or overlaps; the last has no end."""
        ends = (*(bound - 1 for bound in self._bounds), None)
        ranges: list[Overlay] = []
        for first, last, runs in zip((0, *self._bounds), ends, self._choices, strict=True):
            if ranges and ranges[-1].runs is runs:
                first = ranges.pop().first
            ranges.append(Overlay(first, last, runs))
        return tuple(ranges)

    @property
    def builds(self) -> tuple[Build, ...]:
        """The base, then every other build that some call would run."""
        found = {self.base.name: self.base}
        for choice in self._choices:
            for build in (choice,) if isinstance(choice, Build) else (choice.old, choice.new):
                found.setdefault(build.name, build)
        return tuple(found.values())

    def with_overlay(self, overlay: Overlay) -> Published:
        """A copy with one more overlay, over the others; those that it hides altogether are dropped."""
        return Published(self.base, _visible((*self.overlays, overlay)))

    def without(self, name: str) -> Published:
        """A copy in which the build `name` does not occur; a trial is over with either of its builds.

        Where the new one goes, what lies below is run again, which is the old one.
        """
        kept = []
        for overlay in self.overlays:
            if all(build.name != name for build in overlay.builds):
                kept.append(overlay)
            elif isinstance(overlay.runs, Trial) and overlay.runs.new.name != name:
                kept.append(Overlay(overlay.first, overlay.last, overlay.runs.new))
        return Published(self.base, kept)

    def on_trial(self, first: int, last: int | None, new: Build, probe: Probe) -> Published:
        """A copy in which `new` takes turns with what runs calls of `first` to `last` tokens, which `probe` watches."""
        overlays = list(self.overlays)
        for begin, choice in zip((0, *self._bounds), self._choices, strict=True):
            end = next((bound - 1 for bound in self._bounds if bound > begin), None)
            low = max(first, begin)
            high = end if last is None else last if end is None else min(last, end)
            if high is None or low <= high:
                old = choice if isinstance(choice, Build) else choice.old
                overlays.append(Overlay(low, high, Trial(replace(old, probe=probe), new)))
        return Published(self.base, overlays)

    def settled(self, name: str) -> Published:
        """A copy in which the build `name` runs alone where it took turns."""
        return Published(
            self.base,
            _visible(
                [
                    Overlay(overlay.first, overlay.last, replace(overlay.runs.new, probe=None))
                    if isinstance(overlay.runs, Trial) and overlay.runs.new.name == name
                    else overlay
                    for overlay in self.overlays
                ]
            ),
        )

    def probed(self, probe: Probe | None) -> Published:
        """A copy of which every build is watched by `probe`, or none."""
        watched = {build.name: replace(build, probe=probe) for build in self.builds}
        return Published(
            watched[self.base.name],
            [
                Overlay(
                    overlay.first,
                    overlay.last,
                    watched[overlay.runs.name]
                    if isinstance(overlay.runs, Build)
                    else Trial(watched[overlay.runs.old.name], watched[overlay.runs.new.name]),
                )
                for overlay in _visible(self.overlays)
            ],
        )

    def reading(self, buffer: torch.Tensor) -> Published | None:
        """A copy with only the builds that read `buffer`; None where nothing but the base is left."""
        other = {build.name for build in self.builds if build.packed is not buffer}
        left = self
        for name in other:
            left = left.without(name)
        return left if left.overlays else None

    def _top(self, tokens: int) -> Build | Trial:
        return next((overlay.runs for overlay in reversed(self.overlays) if overlay.covers(tokens)), self.base)


def _visible(overlays: Sequence[Overlay]) -> list[Overlay]:
    """Those that some number of tokens would choose."""
    kept: list[Overlay] = []
    for overlay in reversed(overlays):
        starts = {overlay.first, *(above.last + 1 for above in kept if above.last is not None)}
        starts |= {above.first for above in kept}
        if any(overlay.covers(start) and not any(above.covers(start) for above in kept) for start in starts):
            kept.append(overlay)
    return kept[::-1]
