"""Plans, counts and capacities on the simulator against the oracle."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from moec.backends.cuda import planned, sorting
from tests.backends.cuda.calls import Function, close, orders, together

SIZES = [(1, 1), (33, 3), (130, 8)]


def plan(experts: int, k: int) -> str:
    index, made = f"tensor<?x{k}xi32>", f"tensor<{experts + 1}xi32>, tensor<?xi32>"
    return f"""
module attributes {{moe.layer = "L"}} {{
  func.func @L(%i: {index} {{moe.name = "index", moe.role = "input"}}) -> (tensor<{experts + 1}xi32>
      {{moe.name = "offsets"}}, tensor<?xi32> {{moe.name = "slots"}}, tensor<{experts}xi32> {{moe.name = "chosen"}}) {{
    %c = "moe.count"(%i) : ({index}) -> tensor<{experts}xi32>
    %o, %s = "moe.plan"(%i) {{experts = {experts} : i64, direct_max_tokens = 0 : i64}} : ({index}) -> ({made})
    return %o, %s, %c : {made}, tensor<{experts}xi32>
  }}
}}"""


def choices(experts: int, k: int, tokens: int, seed: int) -> dict[str, torch.Tensor]:
    """Index tensors of several kinds, by name."""
    rng = np.random.default_rng(seed)
    random = rng.integers(-1, experts, (tokens, k))
    few = np.where(rng.random((tokens, k)) < 0.9, experts - 1, random)
    made = {
        "random": random,
        "one has nearly all": few,
        "one has all": np.zeros_like(random),
        "none": -np.ones_like(random),
    }
    return {name: torch.tensor(index, dtype=torch.int32) for name, index in made.items()}


def capacity(experts: int, k: int, order: str) -> str:
    index, weight = f"tensor<?x{k}xi32>", f"tensor<?x{k}xf32>"
    return f"""
module attributes {{moe.layer = "L"}} {{
  func.func @L(%i: {index} {{moe.name = "index", moe.role = "input"}},
      %w: {weight} {{moe.name = "weight", moe.role = "input"}}) -> ({index} {{moe.name = "kept"}}) {{
    %o = "moe.capacity"(%i, %w) {{experts = {experts} : i64, factor = 0.75 : f64, minimum = 2 : i64,
      order = "{order}"}} : ({index}, {weight}) -> {index}
    return %o : {index}
  }}
}}"""


@pytest.fixture(scope="module")
def plans() -> dict[str, Function]:
    texts = {str(size): plan(*size) for size in SIZES}
    with pytest.MonkeyPatch.context() as patch:
        for module in (planned, sorting):
            patch.setattr(module, "BLOCKS", 5)
        patch.setattr(sorting, "ALONE", 400)
        return together(texts | {order: capacity(7, 3, order) for order in ("token", "choice", "score")})


def agree(layer: Function, index: torch.Tensor, order: int = 0) -> None:
    want = layer.expected({"index": index})
    out = layer({"index": index}, len(index), order)
    close(out["offsets"], want["offsets"])
    close(out["chosen"], want["chosen"])
    close(out["slots"][: len(want["slots"])], want["slots"])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("tokens", [0, 1, 50, 150])
def test_a_plan(plans: dict[str, Function], size: tuple[int, int], tokens: int) -> None:
    for index in choices(*size, tokens, tokens).values():
        agree(plans[str(size)], index)


@pytest.mark.parametrize(
    ("kind", "order"), [*zip(("random", "one has nearly all", "one has all"), orders(), strict=True)]
)
def test_a_plan_of_more_slots_than_one_block_sorts(plans: dict[str, Function], kind: str, order: int) -> None:
    agree(plans["(33, 3)"], choices(33, 3, 170, order)[kind], order)


@pytest.mark.parametrize("order", ["token", "choice", "score"])
@pytest.mark.parametrize("tokens", [0, 1, 90, 160])
def test_a_capacity(plans: dict[str, Function], order: str, tokens: int) -> None:
    rng = np.random.default_rng(tokens)
    for index in choices(7, 3, tokens, tokens).values():
        weight = rng.choice(np.float32([0.25, 0.5, 1.0, -1.0, 0.0, -0.0, np.nan, np.inf, 3.5]), index.shape)
        given = {"index": index, "weight": torch.tensor(weight)}
        close(plans[order](given, tokens)["kept"], plans[order].expected(given)["kept"])
