"""How a layer is spread, on its way through the IR."""

from __future__ import annotations

import pytest
from torch_mlir import ir

from moec.artifact.parallel import parallel_data
from moec.dialect import context
from moec.dialect.json_attributes import to_attribute
from moec.errors import DiagnosticError
from moec.passes.parallel import parallel
from moec.pipeline.ir_text import parse
from tests.artifact.test_parallel import full, plain


def test_comes_back_from_an_attribute() -> None:
    for one in (plain(), full()):
        module = parse("module {\n}", "a.mlir", context())
        with module.context, ir.Location.unknown():
            module.operation.attributes["moe.parallel"] = to_attribute(parallel_data(one))
        again = parse(str(module), "b.mlir", context())
        assert parallel(again) == one


def test_one_process() -> None:
    assert parallel(parse("module {\n}", "a.mlir", context())) is None


@pytest.mark.parametrize("attribute", ["{}", '{layout = "A"}', '"text"', "dense<1> : tensor<1xi32>"])
def test_an_attribute_that_says_nothing(attribute: str) -> None:
    module = parse(f"module attributes {{moe.parallel = {attribute}}} {{\n}}", "a.mlir", context())
    with pytest.raises(DiagnosticError, match="does not say how the layer is spread"):
        parallel(module)
