"""Placement tables: slots, what stays, and which copy a token takes."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moec.errors import PlacementError
from moec.placement.lookup import flows
from moec.placement.problem import Placement, copies
from moec.placement.table import Table
from moec.placement.table_data import read_table, table_data

GRIDS = [(1,), (2,), (3,), (4,), (2, 2), (2, 3), (2, 2, 2)]


@st.composite
def placements(draw: st.DrawFn, experts: int, positions: int) -> Placement:
    holders = [
        sorted(draw(st.sets(st.integers(0, positions - 1), min_size=1, max_size=min(3, positions))))
        for _ in range(experts)
    ]
    split = []
    for found in holders:
        weights = draw(st.lists(st.sampled_from([0, 1, 1, 2, 5]), min_size=len(found), max_size=len(found)))
        weights = weights if sum(weights) else [1] * len(found)
        split.append(tuple(weight / sum(weights) for weight in weights))
    return Placement(tuple(map(tuple, holders)), tuple(split))


@st.composite
def tables(draw: st.DrawFn) -> Table:
    grid = draw(st.sampled_from(GRIDS))
    experts = draw(st.integers(1, 10))
    placement = draw(placements(experts, math.prod(grid)))
    return Table.first(placement, slots(placement, math.prod(grid)) + draw(st.integers(0, 2)), grid)


def slots(placement: Placement, positions: int) -> int:
    return max(len(placement.on_rank(position)) for position in range(positions))


def check(table: Table) -> None:
    """Slots, and the experts in them, are each other's inverse."""
    placement = table.placement
    assert table.held.shape == (table.positions, table.slots)
    assert table.held.dtype == np.int32
    for position in range(table.positions):
        found = [int(expert) for expert in table.held[position] if expert >= 0]
        assert sorted(found) == list(placement.on_rank(position))
        for expert in range(table.experts):
            slot = table.slot(expert, position)
            assert (slot >= 0) == (expert in found)
            assert slot < 0 or table.held[position, slot] == expert


@given(tables())
def test_a_first_table_holds_every_copy_in_the_order_of_experts(table: Table) -> None:
    check(table)
    for row in table.held:
        found = [int(expert) for expert in row if expert >= 0]
        assert found == sorted(found)
        assert (row[len(found) :] == -1).all()


@given(tables(), st.data())
def test_what_stays_keeps_its_slot_and_what_comes_prefers_free_ones(old: Table, data: st.DataObject) -> None:
    wanted = data.draw(placements(old.experts, old.positions))
    new = old.following(wanted, max(old.slots, slots(wanted, old.positions)))
    check(new)
    for expert in range(old.experts):
        for position in set(old.placement.holders[expert]) & set(wanted.holders[expert]):
            assert new.slot(expert, position) == old.slot(expert, position)
    arrivals = new.arrivals(old)
    assert [(each.expert, each.source, each.target) for each in arrivals] == [
        (each.expert, each.source, each.target) for each in copies(old.placement, wanted)
    ]
    for each in arrivals:
        assert old.held[each.source, each.source_slot] == each.expert
        assert new.held[each.target, each.target_slot] == each.expert
        busy = each.target_slot < old.slots and old.held[each.target, each.target_slot] >= 0
        assert each.staged == busy
    for position in range(old.positions):
        here = [each for each in arrivals if each.target == position]
        free = new.slots - len(old.placement.on_rank(position))
        assert sum(each.staged for each in here) == max(0, len(here) - free)


@given(tables())
def test_nothing_moves_where_nothing_changes(table: Table) -> None:
    assert table.following(table.placement) == table
    assert table.arrivals(table) == ()


def test_other_grids_keep_what_stays_at_its_position() -> None:
    two = Table.first(Placement.contiguous(4, 2), 3, (2,))
    four = two.following(Placement.contiguous(4, 4), grid=(4,))
    check(four)
    assert four.slot(0, 0) == two.slot(0, 0)
    assert [(each.expert, each.source, each.target) for each in four.arrivals(two)] == [(1, 0, 1), (2, 1, 2), (3, 1, 3)]
    back = four.following(two.placement, grid=(2,))
    check(back)
    assert [(each.expert, each.source, each.target) for each in back.arrivals(four)] == [
        (1, 1, 0),
        (2, 2, 1),
        (3, 3, 1),
    ]


@given(tables(), st.integers(0, 20), st.integers(1, 4), st.data())
def test_tokens_go_where_their_experts_are(table: Table, tokens: int, width: int, data: st.DataObject) -> None:
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    index = random.integers(-1, table.experts, (tokens, width)).astype(np.int32)
    for position in range(table.positions):
        lookup = table.lookup(position)
        holder, slot = lookup(index)
        assert holder.dtype == slot.dtype == np.int32
        assert holder.shape == slot.shape == index.shape
        assert ((holder < 0) == (index < 0)).all()
        assert ((slot < 0) == (index < 0)).all()
        assert (table.held[holder[index >= 0], slot[index >= 0]] == index[index >= 0]).all()
        cut = data.draw(st.integers(0, tokens))
        parts = lookup(index[:cut]), lookup(index[cut:], cut)
        assert (np.concatenate([part[0] for part in parts]) == holder).all()
        assert (np.concatenate([part[1] for part in parts]) == slot).all()


@given(tables())
def test_copies_take_their_shares(table: Table) -> None:
    tokens = 2000
    taken = np.zeros((table.experts, table.positions))
    index = np.tile(np.arange(table.experts, dtype=np.int32), (tokens, 1))
    for position in range(table.positions):
        for expert, column in enumerate(table.lookup(position)(index)[0].T):
            taken[expert] += np.bincount(column, minlength=table.positions)
            shares = dict(zip(table.placement.holders[expert], table.placement.split[expert], strict=True))
            own = min(1.0, shares.get(position, 0.0) * table.positions)
            assert (column == position).mean() == pytest.approx(own, abs=0.01)  # its own copy first
    for expert, (holders, split) in enumerate(zip(table.placement.holders, table.placement.split, strict=True)):
        assert taken[expert, list(holders)] / taken[expert].sum() == pytest.approx(np.asarray(split), abs=0.01)
        assert taken[expert, [at for at, share in zip(holders, split, strict=True) if not share]].sum() == 0


@given(st.sampled_from(GRIDS), st.data())
def test_flows_add_up(grid: tuple[int, ...], data: st.DataObject) -> None:
    positions = math.prod(grid)
    placement = data.draw(placements(1, positions))
    found = flows(placement.holders[0], placement.split[0], grid)
    assert (found >= 0).all()
    assert found.sum(1) == pytest.approx(np.ones(positions))
    assert found.sum(0) / positions == pytest.approx(np.asarray(placement.split[0]))


def test_a_copy_on_the_same_node_comes_before_others() -> None:
    found = flows([0, 2], [0.5, 0.5], (2, 2))
    assert found == pytest.approx(np.asarray([[1, 0], [1, 0], [0, 1], [0, 1]]))
    uneven = flows([0, 2], [0.75, 0.25], (2, 2))
    assert uneven[:2] == pytest.approx(np.asarray([[1, 0], [1, 0]]))
    assert uneven[2] == pytest.approx(np.asarray([0, 1]))  # the copy's own position first
    assert uneven[3] == pytest.approx(np.asarray([1, 0]))


def test_the_last_turn_finds_a_copy() -> None:
    """No turn reaches behind the last copy of an expert that has fewer than another."""
    table = Table.first(Placement(((0,), (0, 1, 2)), ((1.0,), (0.0, 1.0, 0.0))), 2, (3,))
    lookup = table.lookup(2)
    index = np.tile(np.asarray([0, 1], np.int32), (200_000, 1))
    holder, _ = lookup(index)
    assert (holder == [0, 1]).all()


@pytest.mark.parametrize(
    ("placement", "places", "slots", "grid"),
    [
        (Placement.contiguous(2, 1), ((0,), (0,)), 2, (1,)),  # two in one slot
        (Placement.contiguous(2, 1), ((0,), (2,)), 2, (1,)),  # no such slot
        (Placement.contiguous(2, 2), ((0,), (0,)), 2, (1,)),  # no such position
        (Placement.contiguous(2, 2), ((0,),), 2, (2,)),
        (Placement.contiguous(2, 2), ((0,), (0, 1)), 2, (2,)),
        (Placement.contiguous(2, 2), ((0,), (0,)), 0, (2,)),
        (Placement.contiguous(2, 2), ((0,), (0,)), 1, ()),
    ],
)
def test_tables_that_cannot_be_are_refused(
    placement: Placement, places: tuple[tuple[int, ...], ...], slots: int, grid: tuple[int, ...]
) -> None:
    with pytest.raises(PlacementError):
        Table(placement, places, slots, grid)


def test_too_few_slots_are_refused() -> None:
    with pytest.raises(PlacementError, match="slots"):
        Table.first(Placement.contiguous(5, 2), 2, (2,))


@given(tables())
def test_tables_travel_as_json(table: Table) -> None:
    assert read_table(json.loads(json.dumps(table_data(table)))) == table


@pytest.mark.parametrize("data", [None, {}, {"holders": [[0]], "split": [[1]], "places": [[0]], "slots": "x"}])
def test_other_data_is_no_table(data: object) -> None:
    with pytest.raises(PlacementError, match="no placement table"):
        read_table(data)
