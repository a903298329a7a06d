"""Tables for more or fewer positions, from one that is in force."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from moec.errors import PlacementError
from moec.placement.planner import planner
from moec.placement.problem import Placement, Problem
from moec.placement.table import Table
from moec.runtime.parallel.moving.rules import Rules


def rescaled(table: Table, positions: int, load: tuple[float, ...], rules: Rules) -> Table:
    """The table of so many positions: more or fewer along the outermost axis of its grid.

    With more, one expert after the other moves from where most is to where least is, as long as that evens the load;
    planners may go on from there.  With fewer, what stays where it is does so, and
    experts of the positions that go find others; only if they do not fit, further copies of what stays make room.
    Raises PlacementError where that cannot be.
    """
    inner = table.grid[1:]
    if positions < 1 or positions % prod(inner):
        raise PlacementError(f"{positions} positions do not fill a grid whose inner axes are {inner}")
    grid = (positions // prod(inner), *inner)
    if rules.everywhere:
        return table.following(Placement.even([range(positions)] * table.experts), grid=grid)
    by = planner(rules.planner)
    load = load if any(load) else (1.0,) * len(load)
    if positions >= table.positions:
        problem = rules.problem(load, table.slots, grid, table.placement, 0.0)
        return table.following(_spread(problem, table.placement), grid=grid)
    problem = rules.problem(load, table.slots, grid, None, 0.0)
    staying = {
        expert: [at for at in holders if at < positions] for expert, holders in enumerate(table.placement.holders)
    }
    kept = {expert: frozenset(found) for expert, found in staying.items() if found}
    try:
        wanted = by.place(replace(problem, pinned=kept))
    except PlacementError:
        wanted = by.place(replace(problem, pinned={e: frozenset(sorted(found)[:1]) for e, found in kept.items()}))
    return table.following(wanted, grid=grid)


def _spread(problem: Problem, placement: Placement) -> Placement:
    holders = [list(found) for found in placement.holders]
    free = [room - len(placement.on_rank(rank)) for rank, room in enumerate(problem.slots)]
    loads = Placement.even(holders).loads(problem.load, problem.ranks)
    while True:
        most = int(loads.argmax())
        least = min(
            (rank for rank in range(problem.ranks) if free[rank] > 0), key=lambda rank: loads[rank], default=most
        )
        gap = loads[most] - loads[least]
        found = [
            (abs(gap / 2 - problem.load[expert] / len(ranks)), expert)
            for expert, ranks in enumerate(holders)
            if most in ranks and least not in ranks and 0 < problem.load[expert] / len(ranks) < gap
            if problem.keeps(expert, [least if rank == most else rank for rank in ranks])
        ]
        if not found:
            return Placement.even(holders)
        _, expert = min(found)
        share = problem.load[expert] / len(holders[expert])
        holders[expert] = [least if rank == most else rank for rank in holders[expert]]
        for rank, sign in ((most, -1), (least, 1)):
            loads[rank] += sign * share
            free[rank] -= sign
