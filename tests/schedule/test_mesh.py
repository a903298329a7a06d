"""A mesh's ranks, coordinates and groups agree with one another."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moec.schedule.mesh import Axis, Mesh

SIZES = st.lists(st.integers(1, 4), min_size=1, max_size=4)


def mesh(sizes: list[int]) -> Mesh:
    return Mesh("Pod", tuple(Axis(f"a{i}", size) for i, size in enumerate(sizes)))


@given(SIZES)
def test_ranks_count_row_by_row(sizes: list[int]) -> None:
    of = mesh(sizes)
    assert [of.coordinates(rank) for rank in range(of.ranks)] == list(product(*map(range, sizes)))
    assert all(of.rank(of.coordinates(rank)) == rank for rank in range(of.ranks))


@given(SIZES, st.data())
def test_groups_divide_the_ranks(sizes: list[int], data: st.DataObject) -> None:
    of = mesh(sizes)
    axes = data.draw(st.lists(st.sampled_from(of.names), unique=True))
    groups = of.groups(axes)
    assert sorted(rank for group in groups for rank in group) == list(range(of.ranks))
    for group in groups:
        assert list(group) == sorted(group)
        assert len(group) == of.size(axes)
        for i, rank in enumerate(group):
            assert of.group(rank, axes) == group
            assert of.position(rank, axes) == of.position(rank, reversed(axes)) == i


def test_all_axes_are_all_ranks() -> None:
    of = mesh([2, 3])
    assert of.group(4, of.names) == tuple(range(6))
    assert of.group(4, ()) == (4,)
    assert of.group(4, ("a0",)) == (1, 4)
    assert of.group(4, ("a1",)) == (3, 4, 5)
    assert of.ordered(("a1", "a0")) == ("a0", "a1")


def test_what_is_not_there() -> None:
    of = mesh([2])
    with pytest.raises(KeyError):
        of.group(0, ("node",))
    with pytest.raises(IndexError):
        of.coordinates(2)
