"""The oracle's index side against brute force."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from moec.oracle import routing

tie_prone = st.one_of(st.sampled_from([0.0, 1.0, -1.0, math.inf, -math.inf, math.nan]), st.floats(-4, 4))
rows = st.lists(tie_prone, min_size=1, max_size=9)
slots = st.lists(st.lists(st.integers(-1, 4), min_size=3, max_size=3), max_size=12)


def key(value: float, position: int) -> tuple[bool, float, int]:
    return (not math.isnan(value), -value if not math.isnan(value) else 0.0, position)


@given(rows, st.data())
def test_top_k_is_the_start_of_a_stable_sort(values: list[float], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(values)))
    expected = sorted(range(len(values)), key=lambda i: key(values[i], i))[:k]
    assert routing.top_k(np.array(values), k).tolist() == expected


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9), st.floats(0.01, 1.0), st.data())
def test_top_p_is_the_smallest_set_that_reaches_the_mass(values: list[float], mass: float, data: st.DataObject) -> None:
    most = data.draw(st.integers(1, len(values)))
    index = routing.top_p(np.array(values), mass, most)
    chosen = [i for i in index.tolist() if i >= 0]
    order = sorted(range(len(values)), key=lambda i: key(values[i], i))
    assert chosen == order[: len(chosen)]
    taken = np.cumsum([values[i] for i in chosen])
    assert len(chosen) == most or taken[-1] >= mass - 1e-12 or len(chosen) == len(values)
    assert len(chosen) == 1 or taken[-2] < mass + 1e-12


@given(slots)
def test_plan_sorts_by_expert_token_slot(index: list[list[int]]) -> None:
    table = np.array(index, np.int64).reshape(len(index), 3)
    offsets, order = routing.plan(table, 5)
    expected = sorted(
        (expert, token * 3 + slot) for token, row in enumerate(index) for slot, expert in enumerate(row) if expert >= 0
    )
    assert order.tolist() == [flat for _, flat in expected]
    for expert in range(5):
        assert order[offsets[expert] : offsets[expert + 1]].tolist() == [f for e, f in expected if e == expert]


@given(slots, st.sampled_from(["token", "choice", "score"]), st.floats(0.1, 2.0), st.integers(0, 3), st.integers(0, 99))
def test_capacity_keeps_the_first_of_every_expert(
    index: list[list[int]], order: str, factor: float, minimum: int, seed: int
) -> None:
    table = np.array(index, np.int64).reshape(len(index), 3)
    weight = np.random.default_rng(seed).choice([0.0, 0.5, 1.0], table.shape)
    kept = routing.capacity(table, weight, 5, factor, minimum, order)
    limit = max(minimum, math.ceil(factor * table.size / 5))
    rank = {
        "token": lambda t, j: (t, j),
        "choice": lambda t, j: (j, t),
        "score": lambda t, j: (-weight[t, j], t, j),
    }[order]
    for expert in range(5):
        queue = sorted([tuple(map(int, tj)) for tj in np.argwhere(table == expert)], key=lambda tj: rank(*tj))
        survivors = {tuple(map(int, tj)) for tj in np.argwhere(kept == expert)}
        assert survivors == set(queue[:limit])
    assert ((kept == table) | (kept == -1)).all()


def test_take_gives_zero_at_an_empty_slot() -> None:
    values = np.array([[1.0, 2.0], [3.0, 4.0]])
    assert routing.take(values, np.array([[1, -1], [-1, 0]])).tolist() == [[2.0, 0.0], [0.0, 3.0]]
