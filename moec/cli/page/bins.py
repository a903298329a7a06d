"""Samples summed up over equal spans of time, however long it goes on."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TypeVar

from moec.journal import Sample

Number = TypeVar("Number", int, float)
SPAN = 2.0
"""Seconds that a span has at first: samples come every second or a little more, and none shall be without."""
MOST = 600
"""Spans of time."""


@dataclass
class Bin:
    """The sums of the samples of one span; the means of none are None.

    chosen     tokens that chose each expert, [E]
    histogram  calls by the power of two at or below their tokens
    p99_ms     the largest of the samples'
    active     the variants that ran
    """

    samples: int = 0
    calls: int = 0
    tokens: float = 0.0
    chosen: list[float] = field(default_factory=list)
    histogram: Counter[int] = field(default_factory=Counter)
    active: set[str] = field(default_factory=set)
    p99_ms: float | None = None
    memory: int | None = None
    _rates: float = 0.0
    _imbalances: float = 0.0
    _imbalanced: int = 0
    _overflows: float = 0.0
    _medians: float = 0.0
    _timed: int = 0

    def add(self, sample: Sample) -> None:
        calls = sum(sample.histogram.values())
        tokens = calls * sample.tokens_per_call
        self.samples += 1
        self.calls += calls
        self.tokens += tokens
        self.chosen = _sum(self.chosen, [share * tokens for share in sample.load])
        self.histogram.update(sample.histogram)
        self.active.update(sample.active)
        self.p99_ms = _larger(self.p99_ms, sample.p99_ms)
        self.memory = _larger(self.memory, sample.memory)
        self._rates += sample.calls_per_second
        if sample.imbalance is not None and calls:
            self._imbalances += sample.imbalance
            self._imbalanced += 1
            self._overflows += sample.overflow or 0.0
        if sample.p50_ms is not None:
            self._medians += sample.p50_ms * calls
            self._timed += calls

    def merge(self, other: Bin) -> None:
        """Take in what another one has summed up."""
        self.samples += other.samples
        self.calls += other.calls
        self.tokens += other.tokens
        self.chosen = _sum(self.chosen, other.chosen)
        self.histogram.update(other.histogram)
        self.active |= other.active
        self.p99_ms = _larger(self.p99_ms, other.p99_ms)
        self.memory = _larger(self.memory, other.memory)
        self._rates += other._rates
        self._imbalances += other._imbalances
        self._imbalanced += other._imbalanced
        self._overflows += other._overflows
        self._medians += other._medians
        self._timed += other._timed

    @property
    def load(self) -> list[float] | None:
        """The experts' shares, [E]."""
        total = sum(self.chosen)
        return [chosen / total for chosen in self.chosen] if total else None

    @property
    def calls_per_second(self) -> float | None:
        return self._rates / self.samples if self.samples else None

    @property
    def tokens_per_call(self) -> float | None:
        return self.tokens / self.calls if self.calls else None

    @property
    def imbalance(self) -> float | None:
        """The mean of the samples'."""
        return self._imbalances / self._imbalanced if self._imbalanced else None

    @property
    def overflow(self) -> float | None:
        """The mean of the samples', a share."""
        return self._overflows / self._imbalanced if self._imbalanced else None

    @property
    def p50_ms(self) -> float | None:
        """The mean of the samples', weighted by their calls."""
        return self._medians / self._timed if self._timed else None


class Bins:
    """Spans of `span` seconds from `begin` on.  When there would be more than `most`, every two become one."""

    def __init__(self, begin: float, most: int = MOST, span: float = SPAN) -> None:
        self.begin, self.span = begin, span
        self.bins: list[Bin] = []
        self._most = most

    def add(self, sample: Sample) -> None:
        """Samples of before the beginning (a clock that was set back) count to the first span."""
        place = max(int((sample.time - self.begin) / self.span), 0)
        while place >= self._most:
            self._halve()
            place = int((sample.time - self.begin) / self.span)
        self.bins.extend(Bin() for _ in range(place + 1 - len(self.bins)))
        self.bins[place].add(sample)

    @property
    def end(self) -> float:
        return self.begin + self.span * len(self.bins)

    def _halve(self) -> None:
        for left, right in zip(self.bins[::2], self.bins[1::2]):  # noqa: B905 - the last may have no partner
            left.merge(right)
        self.bins = self.bins[::2]
        self.span *= 2


def _sum(one: list[float], other: list[float]) -> list[float]:
    if len(one) != len(other):
        return one if len(one) > len(other) else other
    return [a + b for a, b in zip(one, other, strict=True)]


def _larger(one: Number | None, other: Number | None) -> Number | None:
    return one if other is None else other if one is None else max(one, other)
