"""What the checker believes of measures is true of those that a running layer computes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moec.artifact.traffic import Load, Uniform
from moec.diagnostics import Source
from moec.frontend import load_layer_text
from moec.frontend.layouts.measures import bounds_of
from moec.frontend.model import Layer
from moec.runtime.adapt.statistics import MEASURES, LoadStatistics
from tests.frontend.test_graph import ARGUMENTS, library

E = 8


def layer(router: str, factor: float) -> Layer:
    text = f"""edition 1
layer Demo(d = 12) {{
  router {router}
  experts routed[{E}] = swiglu(d, 6)
  tokens capacity({factor})
}}"""
    return load_layer_text(Source("demo.moe", text))


def check(of: Layer, load: Load, factor: float, statistics: LoadStatistics) -> None:
    found, bounds = statistics.snapshot(), bounds_of(of, load, factor)
    for measure in MEASURES:
        low, high = bounds[measure].low, bounds[measure].high
        assert float(low) - 1e-9 <= found.value(measure) <= float(high) + 1e-9, measure


def call(statistics: LoadStatistics, index: np.ndarray, factor: float) -> None:
    """A call in which tokens choose these experts, [T, K], -1 for none."""
    tokens, slots = index.shape
    chosen = np.bincount(index[index >= 0], minlength=E)
    kept = np.minimum(chosen, math.ceil(factor * tokens * slots / E))
    row = statistics.take(tokens)
    assert row is not None
    for tensor, counts in zip(row.tensors, (chosen, kept), strict=True):
        tensor[:] = tensor.new_tensor(counts)
    statistics.give(row, tokens, 0)


@given(
    st.sampled_from([("softmax_top(1)", 1), ("softmax_top(3)", 3), ("top_p(0.9, 3)", 3), ("hash(9, 3)", 3)]),
    st.sampled_from([0.25, 1.0, 1.25, 3.0]),
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, E)), min_size=1, max_size=20),
    st.integers(0, 2**32 - 1),
)
def test_bounds_hold(router: tuple[str, int], factor: float, calls: list[tuple[int, int]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    name, slots = router
    statistics = LoadStatistics(E, slots, capacity=True, half_life=4)
    for tokens, hot in calls:
        if name.startswith("hash"):  # a table may name an expert twice
            index = rng.integers(0, hot, (tokens, slots))
        else:
            pool = max(hot, slots)  # as skewed as it can be where hot is small
            index = np.argsort(rng.random((tokens, pool)), 1)[:, :slots]
        if name.startswith("top_p"):
            index[:, 1:][rng.random(index[:, 1:].shape) < 0.3] = -1  # the first slot is never empty
        call(statistics, index, factor)
    most = max(tokens for tokens, _ in calls)
    check(layer(name, factor), Load("Chat", (1, most), Uniform()), factor, statistics)


@pytest.mark.parametrize(("router", "slots"), [("softmax_top(1)", 1), ("softmax_top(3)", 3), ("top_p(0.9, 3)", 3)])
def test_bounds_are_reached(router: str, slots: int) -> None:
    factor = 0.5
    of, load = layer(router, factor), Load("Chat", (48, 48), Uniform())
    bounds = bounds_of(of, load, factor)
    empty_slots = router.startswith("top_p")
    index = np.tile(np.arange(slots), (48, 1))
    if empty_slots:
        index[:, 1:] = -1
    statistics = LoadStatistics(E, slots, capacity=True)
    call(statistics, index, factor)
    found = statistics.snapshot()
    for measure in ("imbalance", "share", "empty", "overflow"):
        assert found.value(measure) == pytest.approx(float(bounds[measure].high)), measure
    even = LoadStatistics(E, slots, capacity=True)
    call(even, (np.arange(48)[:, None] + np.arange(slots)) % E, factor)
    assert even.snapshot().imbalance == pytest.approx(float(bounds["imbalance"].low))
    assert even.snapshot().share == pytest.approx(float(bounds["share"].low))


@pytest.mark.parametrize("name", library("router"))
def test_every_router_of_the_library(name: str) -> None:
    bounds = bounds_of(layer(f"{name}({ARGUMENTS[name]})", 1.25), None, 1.25)
    for measure, one in bounds.items():
        assert one.low < one.high, measure
