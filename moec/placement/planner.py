"""One interface for all planners: from a problem to a plan that says what moves, what it gains, and how good it is."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Protocol

from moec.errors import PlacementError
from moec.placement.problem import Copy, Drop, Placement, Problem, copies, drops

# name -> module:class, imported when asked for
PLANNERS = {
    "greedy": "moec.placement.greedy:Greedy",
    "optimal": "moec.placement.optimal:Optimal",
}


class Planner(Protocol):
    """Places experts on ranks."""

    @property
    def name(self) -> str: ...

    def place(self, problem: Problem) -> Placement:
        """A placement that keeps the problem's bounds and costs no more than the current one does, if that keeps them.

        Raises PlacementError where the planner cannot run.
        """
        ...


@dataclass(frozen=True)
class Plan:
    """What to do, and why.

    copies  what travels, each from one holder; weights of `drops` may go once all of it has arrived
    before  the imbalance of the current placement, or None where nothing is placed
    after   the imbalance of `placement`
    """

    placement: Placement
    copies: tuple[Copy, ...]
    drops: tuple[Drop, ...]
    before: float | None
    after: float

    @property
    def text(self) -> str:
        """The plan in one line."""
        if self.before is None:
            return f"imbalance {self.after:.3f}"
        if not self.copies and not self.drops:
            return f"stay: imbalance {self.after:.3f}, and nothing gains more than its move costs"
        return (
            f"imbalance {self.before:.3f} -> {self.after:.3f}: {len(self.copies)} copies travel, "
            f"{len(self.drops)} are dropped"
        )


def planner(name: str) -> Planner:
    """The planner of this name.  Raises PlacementError where there is none."""
    if name not in PLANNERS:
        raise PlacementError(f"there is no planner {name!r}; the planners are: {', '.join(PLANNERS)}")
    module, _, attribute = PLANNERS[name].partition(":")
    found: Planner = getattr(import_module(module), attribute)()
    return found


def plan(problem: Problem, by: Planner) -> Plan:
    """Place experts, and say what changes."""
    wanted = by.place(problem)
    current = problem.current
    before = current.imbalance(problem.load, problem.ranks) if current is not None else None
    after = wanted.imbalance(problem.load, problem.ranks)
    return Plan(wanted, copies(current, wanted), drops(current, wanted), before, after)
