"""Whether experts of one layer should move: what that saves while the load stays as it is, against what it takes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moec.errors import PlacementError
from moec.placement.planner import Planner, plan, planner
from moec.placement.table import Table
from moec.runtime.parallel.moving.rules import Rules

_WINDOW = 200
"""Slots an expert, on average, that the load of now is made of."""
_MEMORY = 4.0
"""How many times as long as the load has been like this it may be expected to stay so."""
_LONGEST = 3600.0
_FIRST_PAUSE, _LONGEST_PAUSE = 2.0, 120.0
_OTHER = 0.1
"""The share by which the imbalance must differ for the load to be another."""


@dataclass(frozen=True)
class Verdict:
    """`table`: what to change to; None: nothing.

    before, after  the imbalance of the ranks, now and with the plan
    copies         experts that travel
    saved, cost    seconds: of steps until the load is expected to have changed, and of the links
    """

    table: Table | None
    why: str
    before: float
    after: float
    copies: int
    saved: float
    cost: float


class Judge:
    """Of one layer; looks at its load again and again.

    expert  bytes of an expert
    speed   bytes/s at which experts travel, until `learn` knows better
    """

    def __init__(self, rules: Rules, experts: int, expert: int, speed: float) -> None:
        self.rules, self._expert, self._speed = rules, expert, speed
        self._planner: Planner = planner(rules.planner)
        self._chosen = np.zeros(experts, np.int64)
        self._seconds = 0.0
        self._load = np.zeros(experts)
        self._level, self._since, self._spent = 0.0, 0.0, 0.0  # imbalance, since when, seconds of experts since then
        self._next, self._pause = 0.0, _FIRST_PAUSE

    @property
    def load(self) -> tuple[float, ...]:
        """Slots that chose each expert lately."""
        return tuple(self._load.tolist())

    def learn(self, nbytes: int, seconds: float) -> None:
        """Experts have travelled."""
        if nbytes and seconds > 0:
            self._speed += 0.5 * (nbytes / seconds - self._speed)

    def look(self, table: Table, chosen: NDArray[np.int64], seconds: float, now: float) -> Verdict | None:
        """What to do; None where there is nothing to decide.

        chosen   slots that chose each expert since the beginning, of all ranks' tokens
        seconds  that the rank with most work has computed experts since the beginning
        now      in seconds, of any clock; later than at the last look
        """
        new, spent = chosen - self._chosen, seconds - self._seconds
        self._chosen, self._seconds = chosen.copy(), seconds
        kept = max(0.0, 1.0 - float(new.sum()) / (_WINDOW * len(new)))
        self._load = self._load * kept + new
        before = table.placement.imbalance(self.load, table.positions)
        if abs(before - self._level) > _OTHER * self._level:
            self._level, self._since, self._pause, self._next = before, now, _FIRST_PAUSE, now
            self._spent = 0.0
        else:
            self._spent += spent
        if before < self.rules.gain or now < self._next or not new.any() or not self._spent:
            return None  # of one call in some, steps are timed: several looks may find no new seconds
        verdict = self._judge(table, before, now - self._since)
        if verdict.table is None:
            self._next, self._pause = now + self._pause, min(2 * self._pause, _LONGEST_PAUSE)
        return verdict

    def _judge(self, table: Table, before: float, lasted: float) -> Verdict:
        """lasted: seconds with this load."""
        horizon = min(_MEMORY * lasted, _LONGEST)
        busy = self._spent / lasted  # the share of the time in which the busiest rank computes experts
        each = self._expert / self._speed
        unit = busy * horizon / before  # seconds that one unit of imbalance costs until the load changes
        move_cost = min(each / unit, 1e6) if unit else 1e6
        try:
            problem = self.rules.problem(self.load, table.slots, table.grid, table.placement, move_cost)
            found = plan(problem, self._planner)
        except PlacementError as error:
            return Verdict(None, str(error), before, before, 0, 0.0, 0.0)
        saved, cost = unit * (before - found.after), each * len(found.copies)
        if before < self.rules.gain * found.after:
            why = f"imbalance {before:.2f} would become {found.after:.2f}, no {self.rules.gain:.2f}x less"
        elif saved <= cost:
            why = f"{found.text}; that saves {saved:.2f} s in {horizon:.0f} s, no more than the {cost:.2f} s it takes"
        else:
            why = f"{found.text}; that saves {saved:.2f} s in {horizon:.0f} s, more than the {cost:.2f} s it takes"
            following = table.following(found.placement)
            return Verdict(following, why, before, found.after, len(found.copies), saved, cost)
        return Verdict(None, why, before, found.after, len(found.copies), saved, cost)
