"""moe.plan and moe.capacity against the oracle."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from moec.oracle import routing
from tests.backends.cpu import modules, native
from tests.backends.cpu.artifact import Artifact

VARIANTS = range(len(native.runnable()))


def plan_text(experts: int, slots: int) -> str:
    return f"""
module attributes {{moe.layer = "L"}} {{
  func.func @L(%i: tensor<?x{slots}xi32> {{moe.name = "index", moe.role = "input"}})
      -> (tensor<{experts + 1}xi32> {{moe.name = "offsets"}}, tensor<?xi32> {{moe.name = "slots"}}) {{
    %o, %s = "moe.plan"(%i) {{experts = {experts} : i64, direct_max_tokens = 1 : i64}}
      : (tensor<?x{slots}xi32>) -> (tensor<{experts + 1}xi32>, tensor<?xi32>)
    return %o, %s : tensor<{experts + 1}xi32>, tensor<?xi32>
  }}
}}"""


def capacity_text(experts: int, slots: int, order: str, factor: float, minimum: int) -> str:
    return f"""
module attributes {{moe.layer = "L"}} {{
  func.func @L(%i: tensor<?x{slots}xi32> {{moe.name = "index", moe.role = "input"}},
      %w: tensor<?x{slots}xf32> {{moe.name = "weight", moe.role = "input"}})
      -> (tensor<?x{slots}xi32> {{moe.name = "kept"}}) {{
    %k = "moe.capacity"(%i, %w) {{experts = {experts} : i64, factor = {factor:e} : f64, minimum = {minimum} : i64,
      order = "{order}"}} : (tensor<?x{slots}xi32>, tensor<?x{slots}xf32>) -> tensor<?x{slots}xi32>
    return %k : tensor<?x{slots}xi32>
  }}
}}"""


@pytest.fixture(scope="module")
def planner():
    return Artifact(plan_text(13, 3))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("tokens", [0, 1, 2, 7, 100, 1000])
def test_plan_sorts_by_expert_token_slot(planner, variant, tokens):
    rng = np.random.default_rng(tokens)
    for index in (
        rng.integers(-1, 13, (tokens, 3)),
        np.full((tokens, 3), 12),  # one expert gets all
        np.full((tokens, 3), -1),  # nobody gets anything
    ):
        given = {"index": torch.tensor(index, dtype=torch.int32)}
        out = planner.run(given, variant=variant, rows_per_token=3, threads=2)
        offsets, slots = routing.plan(index, 13)
        assert (out["offsets"].numpy() == offsets).all()
        assert (out["slots"].numpy()[: len(slots)] == slots).all()


def test_an_expert_beyond_the_last_is_an_error(planner):
    for wrong in (13, 2**31 - 1):
        index = torch.tensor([[0, 1, 2], [3, wrong, 5]], dtype=torch.int32)
        with pytest.raises(RuntimeError, match="the number of an expert is not below 13"):
            planner.run({"index": index}, rows_per_token=3)


@pytest.mark.parametrize("order", ["token", "choice", "score"])
@pytest.mark.parametrize(("factor", "minimum"), [(1.0, 0), (1.25, 4), (0.1, 0), (0.5, 0), (100.0, 0)])
def test_capacity_keeps_the_first_of_every_expert(order, factor, minimum):
    layer = Artifact(capacity_text(7, 2, order, factor, minimum))
    rng = np.random.default_rng(5)
    for tokens in (0, 1, 3, 50, 333):
        index = rng.integers(-1, 7, (tokens, 2))
        weight = rng.normal(size=(tokens, 2)).astype(np.float32)
        weight[rng.random((tokens, 2)) < 0.3] = 0.25  # ties
        weight[rng.random((tokens, 2)) < 0.1] = -0.0
        weight[rng.random((tokens, 2)) < 0.1] = 0.0
        for bad in (np.nan, np.inf, -np.inf):
            weight[rng.random((tokens, 2)) < 0.02] = bad
        want = routing.capacity(index, weight.astype(np.float64), 7, factor, minimum, order)
        given = {"index": torch.tensor(index, dtype=torch.int32), "weight": torch.tensor(weight)}
        for variant in VARIANTS:
            kept = layer.run(given, variant=variant)["kept"].numpy()
            assert (kept == want).all(), f"{order}, {tokens} tokens, variant {variant}"


@pytest.fixture(scope="module")
def by_counting_and_by_insertion():
    return [Artifact(modules.experts(8, 5, 13, 3, "f32", direct=direct)) for direct in (0, 20)]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("tokens", [0, 1, 2, 7, 20, 21])
def test_inserting_gives_the_bits_of_counting(by_counting_and_by_insertion, variant, tokens):
    rng = np.random.default_rng(tokens)
    parameters = {name: torch.tensor(rng.standard_normal((13, *shape)), dtype=torch.float32)
                  for name, shape in {"gate": (5, 8), "up": (5, 8), "down": (8, 5)}.items()}  # fmt: skip
    for index in (
        rng.integers(-1, 13, (tokens, 3)),
        np.tile([12, 0, 5], (tokens, 1)),  # descending and back
        np.full((tokens, 3), 12),
        np.full((tokens, 3), -1),
    ):
        given = {
            "x": torch.tensor(rng.standard_normal((tokens, 8)), dtype=torch.float32),
            "index": torch.tensor(index, dtype=torch.int32),
            "weight": torch.tensor(rng.random((tokens, 3)), dtype=torch.float32),
        }
        counted, inserted = (
            layer.run(given, parameters, variant=variant, threads=2)["y"] for layer in by_counting_and_by_insertion
        )
        assert torch.equal(counted, inserted)


def test_both_ways_refuse_an_expert_that_does_not_exist(by_counting_and_by_insertion):
    given = {"x": torch.zeros(1, 8), "index": torch.tensor([[0, 13, 2]], dtype=torch.int32), "weight": torch.ones(1, 3)}
    parameters = {"gate": torch.zeros(13, 5, 8), "up": torch.zeros(13, 5, 8), "down": torch.zeros(13, 8, 5)}
    for layer in by_counting_and_by_insertion:
        with pytest.raises(RuntimeError, match="is not below 13"):
            layer.run(given, parameters)
