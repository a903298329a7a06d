"""From values to places: axes of time and of measures, with ticks at round values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200)
_DAY = 86400
_LOGARITHMIC = 20.0
"""A measure whose largest value is so many times its smallest is shown logarithmically."""

_SMALLEST = 1e-9
"""What is less, or is such a part of the largest value, is drawn as 0."""


@dataclass(frozen=True)
class Scale:
    """0 (bottom) to 1 (top) for values from `low` to `high`."""

    low: float
    high: float
    logarithmic: bool
    ticks: tuple[float, ...]

    def place(self, value: float) -> float:
        if self.logarithmic:
            return (math.log(max(value, self.low)) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return (value - self.low) / (self.high - self.low)


def scale(values: Sequence[float], binary: bool = False) -> Scale:
    """One for these values: from 0, or logarithmic where they are of very different sizes.

    binary: round values are powers of two.
    """
    top = max(values, default=0.0)
    positive = [value for value in values if value > max(_SMALLEST, _SMALLEST * top)]
    if positive and not binary and top >= _LOGARITHMIC * min(positive):
        low, high = math.floor(math.log10(min(positive))), math.ceil(math.log10(top))
        powers = range(low, high + 1)
        every = -(-len(powers) // 4)
        return Scale(10.0**low, 10.0**high, True, tuple(10.0**power for power in powers[::every]))
    step = (_round_up_binary if binary else _round_up)(top / 2) if positive else 0.5
    return Scale(0.0, 2 * step, False, (0.0, step, 2 * step))


def time_ticks(begin: float, end: float, most: int = 8) -> list[tuple[float, str]]:
    """Times between the ends, at most so many, with their names in local time."""
    length = end - begin
    step = next((step for step in _STEPS if length / step <= most), 0) or _DAY * math.ceil(length / most / _DAY)
    offset = (local(begin).utcoffset() or timedelta()).total_seconds()
    first = math.ceil((begin + offset) / step) * step - offset
    form = "%m-%d" if step >= _DAY else "%H:%M" if step >= 60 else "%H:%M:%S"
    times = [first + step * number for number in range(most + 1)]
    return [(time, local(time).strftime(form)) for time in times if time <= end]


def local(time: float) -> datetime:
    """In the time zone of whoever makes the page."""
    return datetime.fromtimestamp(time).astimezone()


def _round_up_binary(value: float) -> float:
    """The next power of two."""
    return 2.0 ** math.ceil(math.log2(value))


def _round_up(value: float) -> float:
    """The next 1, 2, 2.5, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(part * power for part in (1.0, 2.0, 2.5, 5.0, 10.0) if part * power >= value * (1 - 1e-9))
