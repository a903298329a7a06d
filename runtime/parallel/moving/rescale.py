"""Tables for more or fewer positions, from one that is in force."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from moec.errors import PlacementError
from moec.placement.planner import planner
from moec.placement.problem import Placement
from moec.placement.table import Table
from moec.runtime.parallel.moving.rules import Rules

_MOVE = 0.01
"""The imbalance that an expert's move has to save: positions that are new want many."""


def rescaled(table: Table, positions: int, load: tuple[float, ...], rules: Rules) -> Table:
    """The table of so many positions: more or fewer along the outermost axis of its grid.

    With more, experts move to the new ones until the load is even.  With fewer, what stays where it is does so, and
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
        wanted = by.place(rules.problem(load, table.slots, grid, table.placement, _MOVE))
        return table.following(wanted, grid=grid)
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
