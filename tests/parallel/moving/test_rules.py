"""Layouts' pins and copies as what plans have to keep."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moec.artifact.parallel import Parallel, Pin, Replicate, Sharding
from moec.errors import PlacementError
from moec.placement.planner import plan, planner
from moec.placement.problem import Placement
from moec.placement.table import Table
from moec.runtime.parallel.moving.rescale import rescaled
from moec.runtime.parallel.moving.rules import Pinned, Rules
from moec.schedule.mesh import Axis, Mesh

MESH = Mesh("Pod", (Axis("node", 2), Axis("tp", 2), Axis("gpu", 2)))
LAYOUT = Parallel(
    "Serve",
    MESH,
    MESH.names,
    Sharding("routed", ("node", "gpu")),
    4,
    ((0, 1), (0,), (1,), (1, 3), (2,), (2,), (3,), (3,)),
    replicate=(Replicate(2, (0, 3)), Replicate(3, (5,), 1)),
    pins=(Pin((0, 1), "node", 0), Pin((1,), "gpu", 1)),
)
LOAD = (9.0, 1.0, 1.0, 4.0, 1.0, 30.0, 1.0, 1.0)
CURRENT = Placement.even(LAYOUT.holders)


def test_what_a_layout_says() -> None:
    rules = Rules.of(LAYOUT)
    problem = rules.problem(LOAD, 4, (2, 2), CURRENT, 0.0)
    assert problem.most_copies == 3
    assert problem.allowed == {0: frozenset({0, 1}), 1: frozenset({1})}
    assert problem.least == {0: 2, 3: 2}
    assert problem.slots == (4, 4, 4, 4)


def test_plans_keep_it() -> None:
    rules = Rules.of(LAYOUT)
    found = plan(rules.problem(LOAD, 4, (2, 2), CURRENT, 0.0), planner("greedy"))
    holders = found.placement.holders
    assert holders[0] == (0, 1)
    assert holders[1] == (1,)
    assert len(holders[3]) >= 2
    assert len(holders[5]) == 3  # the hottest one now


def test_counts_bound_what_positions_hold() -> None:
    counted = replace(LAYOUT, routed=replace(LAYOUT.routed, counts=(2, 1, 2, 3)))
    assert Rules.of(counted).room == (2, 3, 2, 3)


def test_other_grids_have_the_same_pins() -> None:
    rules = Rules.of(LAYOUT)
    wide = rules.problem(LOAD, 4, (2, 4), CURRENT, 0.0)
    assert wide.allowed == {0: frozenset({0, 1, 2, 3}), 1: frozenset({1})}
    with pytest.raises(PlacementError, match="lacks"):
        rules.problem(LOAD, 4, (4, 1), CURRENT, 0.0)


@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 99))
def test_rescaled_tables_hold_every_expert_and_move_little(before: int, after: int, seed: int) -> None:
    load = tuple(float(each) for each in np.random.default_rng(seed).integers(0, 50, 8))
    table = Table.first(Placement.contiguous(8, before), 8, (before,))
    found = rescaled(table, after, load, Rules(most_copies=2))
    assert found.grid == (after,)
    if after <= before:
        gone = sum(min(holders) >= after for holders in table.placement.holders)
        single = [each for each in found.arrivals(table) if table.placement.holders[each.expert][0] >= after]
        assert len({each.expert for each in single}) == gone
    busy = found.placement.loads(load, after)
    assert busy.max() <= max(load) + sum(load) / after + 1
    if after % before == 0:
        assert len(found.arrivals(table)) <= 8 - 8 // after


def test_copies_make_room_when_ranks_go() -> None:
    table = Table.first(Placement.even([[0, 1], [0, 1], [2], [3]]), 2, (4,))
    found = rescaled(table, 2, (1.0,) * 4, Rules(most_copies=2))
    assert sorted(map(len, found.placement.holders)) == [1, 1, 1, 1]
    with pytest.raises(PlacementError, match="do not fit"):
        rescaled(table, 1, (1.0,) * 4, Rules())
    with pytest.raises(PlacementError, match="do not fill"):
        rescaled(Table.first(Placement.contiguous(4, 4), 2, (2, 2)), 3, (1.0,) * 4, Rules())


def test_pins_hold_on_fewer_and_on_more_ranks() -> None:
    rules = Rules(pins=(Pinned((0,), 0, 1),))
    table = Table.first(Placement.even([[1], [0], [2], [3]]), 4, (4,))
    assert rescaled(table, 2, (1.0,) * 4, rules).placement.holders[0] == (1,)
    assert rescaled(table, 8, (1.0,) * 4, rules).placement.holders[0] == (1,)
