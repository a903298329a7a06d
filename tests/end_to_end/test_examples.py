"""Every example, made small, from the `.moe` file to numbers, against the oracle and against itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from moec.runtime.module import Layer

from .conftest import Compiled, random_layer, relative_error

pytestmark = pytest.mark.long

EXAMPLES = Path(__file__).parent.parent.parent / "examples"

# Odd sizes: not multiples of any vector, panel or row block.
SMALL: dict[str, dict[str, Any]] = {
    "olmoe": {"d": 51, "ff": 37},
    "qwen3_30b_a3b": {"d": 40, "ff": 19},
    "mixtral_8x7b": {"d": 33, "ff": 70},
    "deepseek_v2_lite": {"d": 48, "ff": 21},
    "switch_base": {"d": 35, "ff": 50},
}
TOLERANCE = {"f32": 3e-6, "bf16": 4e-3, "f16": 5e-4}
TRIED = [*((name, dtype) for name in SMALL for dtype in ("f32", "bf16")), ("deepseek_v2_lite", "f16")]
CASES = [pytest.param(name, dtype, id=f"{name}-{dtype}") for name, dtype in TRIED]
INVARIANT = [case for case in CASES if "switch" not in case.id]

Compile = Callable[..., Compiled]
Case = tuple[Layer, Callable[..., Any], torch.dtype, int]


@pytest.fixture
def case(compiled: Compile, name: str, dtype: str) -> Case:
    artifact, reference = compiled(EXAMPLES / f"{name}.moe", dtype=dtype, **SMALL[name])
    layer = random_layer(artifact)
    width = layer.manifest.inputs[0].row[0]
    return layer, reference, {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}[dtype], width


def tokens(count: int, width: int, dtype: torch.dtype, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize(("name", "dtype"), CASES)
@pytest.mark.parametrize("count", [0, 1, 2, 17, 130])
def test_agrees_with_the_oracle(case: Case, dtype: str, count: int) -> None:
    layer, reference, torch_dtype, width = case
    x = tokens(count, width, torch_dtype)
    want = reference({**layer.state_dict(), "x": x})["y"]
    assert relative_error(layer(x), want) < TOLERANCE[dtype]


@pytest.mark.parametrize(("name", "dtype"), CASES)
@pytest.mark.parametrize("routing", ["one expert gets all", "ties", "skewed"])
def test_adversarial_routing(case: Case, dtype: str, routing: str) -> None:
    layer, reference, torch_dtype, width = case
    state = layer.state_dict()
    x = tokens(60, width, torch_dtype)
    router = torch.zeros_like(state["router.logits.weight"])
    if routing == "one expert gets all":
        x[:, 0] = 3.0
        router[5, 0] = 4.0
        router[6:, 0] = 1.0
    elif routing == "skewed":
        router[:, :2] = torch.randn(len(router), 2, generator=torch.Generator().manual_seed(3)) * 4
        router[0] = 0.5
    state["router.logits.weight"] = router
    layer.load_state_dict(state)
    want = reference({**state, "x": x})["y"]
    assert relative_error(layer(x), want) < TOLERANCE[dtype]


@pytest.mark.parametrize(("name", "dtype"), INVARIANT)
def test_a_token_has_the_same_bits_in_any_batch_and_with_any_number_of_threads(case: Case) -> None:
    layer, _, torch_dtype, width = case
    assert layer.manifest.guarantees.batch_invariant
    x = tokens(150, width, torch_dtype)
    whole = layer(x)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            for start, stop in [(0, 1), (3, 5), (7, 30), (20, 150), (0, 150)]:
                assert torch.equal(layer(x[start:stop].contiguous()), whole[start:stop])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("name", "dtype"), INVARIANT)
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf")])
def test_a_poisoned_token_does_not_touch_the_others(case: Case, poison: float) -> None:
    layer, _, torch_dtype, width = case
    x = tokens(40, width, torch_dtype)
    clean = layer(x)
    x[11, 3] = poison
    x[30] = poison
    dirty = layer(x)
    others = [t for t in range(40) if t not in (11, 30)]
    assert torch.equal(dirty[others], clean[others])
    assert not torch.isfinite(dirty[30]).all()


@pytest.mark.parametrize(("name", "dtype"), [pytest.param("switch_base", "f32", id="switch_base-f32")])
def test_a_capacity_limit_is_not_called_batch_invariant(case: Case) -> None:
    layer = case[0]
    assert not layer.manifest.guarantees.batch_invariant
    assert not layer.manifest.guarantees.isolated


def test_f16_overflows_where_ieee_arithmetic_does_and_nowhere_else(compiled: Compile) -> None:
    artifact, reference = compiled(EXAMPLES / "deepseek_v2_lite.moe", dtype="f16", **SMALL["deepseek_v2_lite"])
    layer = random_layer(artifact)
    x = tokens(7, SMALL["deepseek_v2_lite"]["d"], torch.float16)
    x[2] *= 6000  # squared between the linears: beyond 65504
    x[4, 3], x[5, 0] = float("nan"), float("inf")
    x[6] = 2**-24
    got = layer(x)
    want = reference({**layer.state_dict(), "x": x})["y"]
    assert not torch.isfinite(got[[2, 4, 5]]).all(1).any()
    assert torch.isnan(got[4]).all()
    rest = [0, 1, 3, 6]
    assert relative_error(got[rest], want[rest]) < TOLERANCE["f16"]
    assert torch.equal(got[rest], layer(x[rest]))
