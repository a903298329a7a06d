"""The optimal planner: the placement as a mixed-integer program, solved by HiGHS.

minimise    z + move_cost * (number of copies that are not where they were)
such that   sum over ranks of y[e, r] = load[e]           every expert's tokens go somewhere
            y[e, r] <= load[e] * x[e, r]                  only to ranks that hold it
            sum over experts of x[e, r] <= slots[r],      least[e] <= sum over ranks of x[e, r] <= most_copies
            x[e, r] = 1 where e is pinned to r, 0 where it is not allowed
            sum over experts of y[e, r] <= mean * z       z is the imbalance
            x binary, y >= 0
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from moec.errors import PlacementError
from moec.placement.balance import balanced
from moec.placement.greedy import Greedy
from moec.placement.problem import Placement, Problem

if TYPE_CHECKING:
    import highspy


@dataclass(frozen=True)
class Optimal:
    """The best placement within `seconds`; starts from the greedy one and is never worse.

    Needs the package highspy (`pip install 'moec[planner]'`).
    """

    seconds: float = 10.0
    name: str = "optimal"

    def place(self, problem: Problem) -> Placement:
        return self.solve(problem)[0]

    def solve(self, problem: Problem) -> tuple[Placement, float]:
        """The placement, and a lower bound of any placement's cost: equal to its own if it is proved to be optimal."""
        start = Greedy().place(problem)
        if not problem.mean:
            return start, problem.cost(start)
        solver, x = _program(problem, self.seconds)
        _begin_at(solver, x, problem, start)
        solver.run()
        bound = float(solver.getInfo().mip_dual_bound)
        values = np.asarray(solver.getSolution().col_value)
        if not len(values):
            return start, bound
        held = values[: x.size].reshape(x.shape) > 0.5
        found = balanced([np.flatnonzero(row).tolist() for row in held], problem.load, problem.ranks)
        best = min(found, start, key=problem.cost)
        return best, min(bound, problem.cost(best))


def _program(problem: Problem, seconds: float) -> tuple[highspy.Highs, Any]:
    """The program, and the numbers of its variables x as an array [experts, ranks], which come first."""
    try:
        import highspy
    except ImportError as error:
        raise PlacementError(
            "the optimal planner needs the package highspy: `pip install 'moec[planner]'`, or use the greedy one"
        ) from error
    solver = highspy.Highs()
    solver.setOptionValue("output_flag", False)
    solver.setOptionValue("time_limit", seconds)
    experts, ranks = problem.experts, problem.ranks
    load = np.asarray(problem.load) / problem.mean
    x = np.arange(experts * ranks).reshape(experts, ranks)
    y = x + x.size
    z = 2 * x.size
    lower, upper, cost = _bounds(problem)
    solver.addVars(
        z + 1,
        np.concatenate([lower, np.zeros(x.size + 1)]),
        np.concatenate([upper, np.full(x.size + 1, highspy.kHighsInf)]),
    )
    solver.changeColsIntegrality(x.size, x.ravel().astype(np.int32), np.full(x.size, highspy.HighsVarType.kInteger))
    solver.changeColsCost(z + 1, np.arange(z + 1, dtype=np.int32), np.concatenate([cost, np.zeros(x.size), [1.0]]))

    def row(low: float, high: float, columns: Any, factors: Any) -> None:
        solver.addRow(low, high, len(columns), np.asarray(columns, np.int32), np.asarray(factors, np.float64))

    infinity = highspy.kHighsInf
    for expert in range(experts):
        row(load[expert], load[expert], y[expert], np.ones(ranks))
        row(problem.needs(expert), problem.most_copies, x[expert], np.ones(ranks))
        for rank in range(ranks):
            row(-infinity, 0, [y[expert, rank], x[expert, rank]], [1, -load[expert]])
    for rank in range(ranks):
        row(-infinity, problem.slots[rank], x[:, rank], np.ones(experts))
        row(-infinity, 0, [*y[:, rank], z], [*np.ones(experts), -1])
    return solver, x


def _bounds(problem: Problem) -> tuple[Any, Any, Any]:
    """Lower and upper bounds and costs of x: pinned copies are 1, new ones cost a move."""
    shape = (problem.experts, problem.ranks)
    lower, upper, cost = np.zeros(shape), np.ones(shape), np.zeros(shape)
    for expert, ranks in problem.allowed.items():
        upper[expert, sorted(set(range(problem.ranks)) - ranks)] = 0
    for expert, ranks in problem.pinned.items():
        lower[expert, sorted(ranks)] = 1
    if problem.current is not None:
        cost[:] = problem.move_cost
        for expert, holders in enumerate(problem.current.holders):
            cost[expert, list(holders)] = 0
    return lower.ravel(), upper.ravel(), cost.ravel()


def _begin_at(solver: highspy.Highs, x: Any, problem: Problem, start: Placement) -> None:
    import highspy

    held, flow = np.zeros(x.shape), np.zeros(x.shape)
    for expert, (holders, shares) in enumerate(zip(start.holders, start.split, strict=True)):
        held[expert, list(holders)] = 1
        flow[expert, list(holders)] = np.asarray(shares) * problem.load[expert] / problem.mean
    solution = highspy.HighsSolution()
    solution.col_value = [*held.ravel(), *flow.ravel(), start.imbalance(problem.load, problem.ranks)]
    solver.setSolution(solution)
