"""When compiling is considered: a state machine for each `recompile when` statement.

    idle ──condition──► holding ──for the window──► tripped ──handled──► cooling ──pause is over──► idle
      ▲                    │                                                │
      └── widened condition false ◄──────────────────────────────────────────┘

It knows no clock: whoever updates it says what time it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from moec.artifact.policy import Trigger

FIRST_PAUSE = 5.0
"""Seconds between two considerations, at least."""
LONGEST_PAUSE = 600.0
"""What the pause doubles up to while considering is fruitless."""


class State(StrEnum):
    IDLE = "idle"
    HOLDING = "holding"
    TRIPPED = "tripped"
    COOLING = "cooling"


@dataclass(frozen=True)
class Held:
    """How long a condition has held, in the unit of its window ("calls" or "s")."""

    amount: float
    window: float
    unit: str


class Guard:
    """One statement.  `update` it with every new measurement; when it is tripped, act and say `handled`.

    Hysteresis: to begin, the condition itself must hold; to go on, the condition widened by the hysteresis is enough,
    so that a measure which wavers about its threshold neither starts the window over and over nor trips twice.

    After a consideration there is a pause.  It ends early when the widened condition is false: the load has changed,
    and the next time is a new one.  While the condition stays true and considering it is fruitless, the pause
    doubles, so that a load which no variant suits costs nothing.

    values  the measures of its condition at the last update
    """

    def __init__(
        self, trigger: Trigger, first_pause: float = FIRST_PAUSE, longest_pause: float = LONGEST_PAUSE
    ) -> None:
        self.trigger = trigger
        self.state = State.IDLE
        self._widened = trigger.when.widened(trigger.hysteresis)
        self._first_pause, self._longest_pause = first_pause, longest_pause
        self._pause = first_pause
        self._begin = (0, 0.0)  # calls and time when it began to hold
        self._now = (0, 0.0)
        self._until = 0.0
        self._since: float | None = None
        self.values: Mapping[str, float] = {}

    def update(self, values: Mapping[str, float], calls: int, now: float) -> State:
        """Take in the measures at the time `now` (seconds, of any clock), after `calls` calls in all.

        A measure that is missing makes comparisons with it false.
        """
        self._now = (calls, now)
        self.values = {measure: values[measure] for measure in sorted(self.trigger.when.measures & values.keys())}
        begins, goes_on = self.trigger.when.holds(values), self._widened.holds(values)
        if not (begins or goes_on):
            self._since = None
        elif begins and self._since is None:
            self._since = now
        if self.state is State.COOLING:
            if not (begins or goes_on):
                self.state, self._pause = State.IDLE, self._first_pause
            elif now >= self._until:
                self.state = State.IDLE
        elif not (begins or goes_on):
            self.state, self._pause = State.IDLE, self._first_pause
        if self.state is State.IDLE and begins:
            self.state, self._begin = State.HOLDING, self._now
        if self.state is State.HOLDING and self._over():
            self.state = State.TRIPPED
        return self.state

    def handled(self, now: float, *, fruitless: bool) -> None:
        """What it tripped for was considered; `fruitless`: there is nothing to do about it, or it failed."""
        self._pause = min(2 * self._pause, self._longest_pause) if fruitless else self._first_pause
        self._until = now + self._pause
        self.state = State.COOLING

    @property
    def lasted(self) -> float:
        """For how many seconds the load has been like this, pauses included."""
        return 0.0 if self._since is None else self._now[1] - self._since

    @property
    def held(self) -> Held:
        """How long the condition has held; 0 while it does not."""
        window = self.trigger.window
        calls, seconds = self._now[0] - self._begin[0], self._now[1] - self._begin[1]
        counts = self.state in (State.HOLDING, State.TRIPPED)
        if window.calls is not None:
            return Held(calls if counts else 0, window.calls, "calls")
        return Held(seconds if counts else 0.0, window.seconds or 0.0, "s")

    def ahead(self, calls_per_second: float) -> float:
        """Seconds until it trips where nothing changes; infinite where its condition does not hold."""
        left = self.held.window - self.held.amount
        if self.trigger.window.calls is not None:
            left = left / calls_per_second if calls_per_second > 0 else math.inf
        pause = self._until - self._now[1] if self.state is State.COOLING else 0.0
        return math.inf if self._since is None or self.state is State.IDLE else max(left, 0.0) + max(pause, 0.0)

    def _over(self) -> bool:
        held = self.held
        return held.amount >= held.window
