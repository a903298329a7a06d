"""Where experts lie at first: as many at each position as asked for, pins kept, copies apart."""

from __future__ import annotations

from collections import Counter
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moec.frontend.layouts.holders import NoRoom, place

SIZES: list[int] = []
"""Without axes no position is nearer than another."""


@st.composite
def wishes(draw: st.DrawFn) -> tuple[list[int], dict[int, frozenset[int]], dict[int, int], list[float]]:
    counts = draw(st.lists(st.integers(0, 3), min_size=1, max_size=5).filter(any))
    experts, positions = sum(counts), len(counts)
    some = st.frozensets(st.integers(0, positions - 1), min_size=1, max_size=2)
    allowed = draw(st.dictionaries(st.integers(0, experts - 1), some, max_size=experts))
    copies = {
        expert: draw(st.integers(2, room))
        for expert in draw(st.sets(st.integers(0, experts - 1), max_size=4))
        if (room := len(allowed.get(expert, range(positions)))) > 1
    }
    return counts, allowed, copies, draw(st.lists(st.floats(0, 9), min_size=experts, max_size=experts))


def fits(counts: list[int], allowed: dict[int, frozenset[int]]) -> bool:
    """Can every pinned expert have a place?  By trying all ways."""
    return any(
        all(number <= counts[position] for position, number in Counter(ways).items())
        for ways in product(*allowed.values())
    )


@given(wishes())
def test_all_wishes_are_kept(given_: tuple[list[int], dict[int, frozenset[int]], dict[int, int], list[float]]) -> None:
    counts, allowed, copies, load = given_
    if not fits(counts, allowed):
        with pytest.raises(NoRoom) as caught:
            place(counts, allowed, copies, load, [len(counts)])
        why = caught.value
        assert all(allowed[expert] <= set(why.positions) for expert in why.experts)
        assert len(why.experts) > sum(counts[position] for position in why.positions)
        return
    holders = place(counts, allowed, copies, load, [len(counts)])
    assert [len(at) for at in holders] == [copies.get(expert, 1) for expert in range(sum(counts))]
    for expert, at in enumerate(holders):
        assert list(at) == sorted(set(at))
        assert set(at) <= allowed.get(expert, frozenset(range(len(counts))))
    held = Counter(position for at in holders for position in at)
    extra = sum(copies.values()) - len(copies)
    assert sum(held.values()) == sum(counts) + extra
    assert all(held[position] <= counts[position] + extra for position in range(len(counts)))
    if not copies:
        assert [held[position] for position in range(len(counts))] == counts
    assert place(counts, allowed, copies, load, [len(counts)]) == holders


def test_neighbours_lie_together() -> None:
    assert place([2, 0, 3], {}, {}, [1.0] * 5, SIZES) == ((0,), (0,), (2,), (2,), (2,))
    assert place([2, 2], {3: frozenset({0})}, {}, [1.0] * 4, SIZES) == ((0,), (1,), (1,), (0,))


def test_a_pin_may_move_others() -> None:
    first, left, right = frozenset({0}), frozenset({0, 1}), frozenset({0, 2})
    assert place([1, 1], {0: left, 1: first}, {}, [1.0] * 2, SIZES) == ((1,), (0,))
    assert place([1, 1, 1], {0: left, 1: right, 2: right}, {}, [1.0] * 3, SIZES) == ((1,), (2,), (0,))
    with pytest.raises(NoRoom):
        place([1, 1], {0: first, 1: first}, {}, [1.0] * 2, SIZES)


def test_copies_go_where_there_is_least() -> None:
    assert place([1, 1, 1, 1], {}, {0: 2}, [8.0, 4.0, 1.0, 2.0], SIZES) == ((0, 2), (1,), (2,), (3,))
    assert place([2, 1], {}, {0: 2}, [1.0] * 3, SIZES) == ((0, 1), (0,), (1,))


@given(st.integers(2, 8), st.integers(0, 7))
def test_copies_are_far_apart(copies: int, expert: int) -> None:
    holders = place([1] * 8, {}, {expert: copies}, [1.0] * 8, [4, 2])
    nodes = Counter(position // 2 for position in holders[expert])
    assert max(nodes.values()) - min(nodes[node] for node in range(4)) <= 1
