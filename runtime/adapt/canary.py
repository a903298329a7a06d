"""A new build on real calls, in turns with the old one: is it faster where it counts?"""

from __future__ import annotations

import statistics
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch

_COLD = 3
_KEPT = 256
_NO_WORSE = 0.95
_SHORTEST = 1.0
"""Seconds of a trial: short calls are soon enough of them, while the new build's weights come into the caches."""
_FEW = 8
_HOPELESS = 0.5
"""A gain below which a few calls are enough: the others had better not meet it."""


class Meter:
    """`Build.probe` of a build on trial: how long its calls take, by the bit length of their number of tokens."""

    def __init__(self) -> None:
        self._taken: dict[int, deque[int]] = defaultdict(lambda: deque(maxlen=_KEPT))
        self.calls = 0

    def seen(self, inputs: Sequence[torch.Tensor], nanoseconds: int) -> None:
        self.calls += 1
        if self.calls > _COLD:  # the first ones fetch code and tables
            self._taken[int(inputs[0].shape[0]).bit_length()].append(nanoseconds)

    def medians(self) -> dict[int, tuple[float, int]]:
        """For each bit length the median in nanoseconds, and of how many."""
        taken = {length: list(times) for length, times in list(self._taken.items())}
        return {length: (statistics.median(times), len(times)) for length, times in taken.items() if times}


@dataclass(frozen=True)
class Verdict:
    """What a trial has shown in `calls` calls of each: `gain` times as fast for its work; `kept`: the new one stays."""

    gain: float
    calls: int
    kept: bool


class Canary:
    """A trial that began at the time `begin`.

    asked    how many times as fast the policy wants a variant to be; half of that is what must be measured, as there
             is noise; less, and the memory and the risk are for nothing
    work     how many times as much the new build does in a call.  Where that is more, it is wanted for that, and is
             kept unless it takes longer for the same work
    enough   calls of each build that decide
    longest  seconds after which fewer decide
    """

    def __init__(self, begin: float, asked: float, work: float = 1.0, enough: int = 40, longest: float = 60.0) -> None:
        self.old, self.new = Meter(), Meter()
        self.needed = 1 + (asked - 1) / 2 if work <= 1 else _NO_WORSE
        self._work = work
        self._enough = enough
        self._from, self._until = begin + _SHORTEST, begin + longest

    def verdict(self, now: float) -> Verdict | None:
        """None while it is too early."""
        old, new = self.old.medians(), self.new.medians()
        common = old.keys() & new.keys()
        calls = sum(min(old[length][1], new[length][1]) for length in common)
        early = now < self._from or (calls < self._enough and now < self._until)
        if early and not (calls >= _FEW and self._gain() < _HOPELESS):
            return None
        if not calls:
            return Verdict(1.0, 0, kept=True)  # nobody called; whoever does finds a validated build
        gain = self._gain()
        return Verdict(gain, calls, gain >= self.needed)

    def _gain(self) -> float:
        """Times of calls of like size before over after; each size as often as both builds have had it."""
        old, new = self.old.medians(), self.new.medians()
        common = old.keys() & new.keys()
        weights = {length: min(old[length][1], new[length][1]) for length in common}
        before = sum(old[length][0] * weights[length] for length in common)
        after = sum(new[length][0] * weights[length] for length in common)
        return self._work * before / after if after else 1.0
