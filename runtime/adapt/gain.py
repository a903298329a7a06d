"""Whether a variant is worth compiling: what it should save against what it costs."""

from __future__ import annotations

import math
from dataclasses import dataclass

_FIRST_COST = 1.0
_FIRST_TRIAL = 0.2
_LEARNING = 0.5
_MEMORY = 4.0
"""How many times as long as the load has been like this it may be expected to stay so."""
_HORIZON = 3600.0


@dataclass(frozen=True)
class Estimate:
    """The two sides of a decision.

    gain            predicted: how many times as fast
    expected_calls  that will profit before the load is another
    saved, cost     seconds
    threshold       the gain that the policy asks for
    """

    gain: float
    expected_calls: float
    saved: float
    cost: float
    threshold: float

    @property
    def worthwhile(self) -> bool:
        return self.gain >= self.threshold and self.saved > self.cost

    @property
    def why(self) -> str:
        """For people: what decided it."""
        if self.gain < self.threshold:
            return f"predicted gain {self.gain:.2f}x is below the policy's {self.threshold:.2f}x"
        relation = "more" if self.worthwhile else "no more"
        return (
            f"{self.gain:.2f}x over about {self.expected_calls:.0f} calls saves {self.saved:.1f} s, "
            f"{relation} than the {self.cost:.1f} s that it takes"
        )


def estimate(
    gain: float, threshold: float, calls_per_second: float, seconds_per_call: float, lasted: float, cost: float
) -> Estimate:
    """Weigh a predicted `gain` up.

    calls_per_second  of the calls that the variant is for
    seconds_per_call  of these calls now
    lasted            for how many seconds the load has been like this: the longer, the longer it will (the
                      expectation where nothing else is known is a multiple of it)
    cost              seconds of a processor for compiling, moving the weights and validating
    """
    horizon = min(_MEMORY * max(lasted, 0.0), _HORIZON)
    calls = max(calls_per_second, 0.0) * horizon
    saved = calls * max(seconds_per_call, 0.0) * (1 - 1 / gain) if gain > 0 else -math.inf
    return Estimate(gain, calls, saved, cost, threshold)


@dataclass(frozen=True)
class Spent:
    """Seconds of a processor that a variant took in the background.

    making  None: it was there already
    trying  packing its weights included
    """

    making: float | None
    trying: float


class Cost:
    """What a variant takes here, learned from those that came.

    Processor time, as what calls save is theirs: where callers leave the compiler little of the processors, a variant
    comes later, and costs no more.
    """

    def __init__(self) -> None:
        self._making, self._trying = _FIRST_COST, _FIRST_TRIAL

    def learn(self, spent: Spent) -> None:
        if spent.making is not None:
            self._making += _LEARNING * (spent.making - self._making)
        self._trying += _LEARNING * (spent.trying - self._trying)

    def seconds(self, *, there: bool) -> float:
        """Of a variant that has to be compiled, or that is there."""
        return self._trying + (0.0 if there else self._making)
