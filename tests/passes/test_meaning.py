"""No pass changes what a layer computes: the oracle's answer is the same before and after each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from torch_mlir import ir

from moec import oracle, passes
from moec.dialect import context
from moec.passes import Pass
from moec.pipeline.ir_text import parse

IR = Path(__file__).parent.parent / "ir"
LAYERS = [
    "layer",
    "hoist_router_layers",
    "default_pipeline_different_shared",
    "quantised_experts",
    "quantised_different_shared",
    "quantised_given",
]


def random_arguments(module: ir.Module, tokens: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    (function,) = module.body.operations
    arguments = {}
    for value, attributes in zip(
        function.regions[0].blocks[0].arguments, function.operation.attributes["arg_attrs"], strict=True
    ):
        shape = [tokens if n < 0 else n for n in value.type.shape]
        codes = str(value.type.element_type) == "i8"
        array = rng.integers(-8, 8, shape) if codes else rng.standard_normal(shape)
        arguments[ir.StringAttr(attributes["moe.name"]).value] = array
    return arguments


@pytest.mark.parametrize("tokens", [0, 1, 13])
@pytest.mark.parametrize("name", LAYERS)
def test_default_pipeline_keeps_the_meaning(name: str, tokens: int) -> None:
    module = parse((IR / f"{name}.mlir").read_text(), name, context())
    arguments = random_arguments(module, tokens, np.random.default_rng(tokens))
    before = oracle.run(module, arguments)

    def same(done: Pass, now: ir.Module) -> None:
        for result, value in oracle.run(now, arguments).items():
            np.testing.assert_allclose(value, before[result], rtol=1e-12, err_msg=f"after {done.name}")

    passes.run(module, passes.parse_pipeline(passes.DEFAULT_PIPELINE), same)


def test_a_pass_that_changes_the_meaning_is_seen() -> None:
    text = (IR / "layer.mlir").read_text()
    arguments = random_arguments(parse(text, "layer", context()), 5, np.random.default_rng(0))
    module = parse(text, "layer", context())
    broken = parse(text.replace("arith.mulf %silu, %up", "arith.addf %silu, %up", 1), "layer", context())
    assert not np.allclose(oracle.run(module, arguments)["y"], oracle.run(broken, arguments)["y"])
