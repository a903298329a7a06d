"""What passes cannot lower they refuse, or leave as it is, and say why."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from moec import oracle, passes
from moec.dialect import context
from moec.errors import DiagnosticError
from moec.passes import Report
from moec.pipeline.ir_text import parse, show

from .test_meaning import random_arguments

IR = Path(__file__).parent.parent / "ir"
LAYER = (IR / "layer.mlir").read_text()
ROUTER = (IR / "hoist_router_layers.mlir").read_text()

REPEATED = """\
      %half = tensor.extract_slice %up[0] [5] [1] : tensor<10xf32> to tensor<5xf32>
      %room = tensor.empty() : tensor<2x5xf32>
      %twice = linalg.broadcast ins(%half : tensor<5xf32>) outs(%room : tensor<2x5xf32>) dimensions = [0]
      %wide = tensor.collapse_shape %twice [[0, 1]] : tensor<2x5xf32> into tensor<10xf32>
      %h32 = arith.mulf %silu, %wide : tensor<10xf32>
"""


def run(text: str, *specs: str) -> tuple[str, Report]:
    module = parse(text, "test", context())
    report = passes.run(module, passes.parse_pipeline(specs))
    return show(module), report


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("outs(%zero24 : tensor<24xf32>)", "outs(%bias : tensor<24xf32>)", "start at zero"),
        ('"moe.yield"(%down)', '"moe.yield"(%zero24)', "depends on no linear"),
        ("      %h32 = arith.mulf %silu, %up : tensor<10xf32>\n", REPEATED, "repeats elements"),
    ],
)
def test_an_expert_that_is_no_chain_of_matmuls_is_refused(old: str, new: str, why: str) -> None:
    assert old in LAYER
    bias = "      %bias = arith.constant dense<1.0> : tensor<24xf32>\n      %zero24 ="
    text = LAYER.replace(old, new).replace("      %zero24 =", bias)
    with pytest.raises(DiagnosticError, match=why) as caught:
        run(text, "fuse-shared-experts", "expand-experts")
    assert "E0610" in str(caught.value)


def test_a_parameter_that_a_router_reads_whole_joins_the_epilogue() -> None:
    text = ROUTER.replace(
        "      %w3: ", '      %b: tensor<5xf32> {moe.name = "router.b", moe.role = "parameter"},\n      %w3: '
    )
    text = text.replace("arith.maximumf %h, %zero5", "arith.maximumf %h, %b")
    lowered, _ = run(text, "hoist-router", "canonicalize")
    assert '{kind = "column"} : (tensor<1x5xf32>) -> f32' in lowered
    module = parse(text, "test", context())
    arguments = random_arguments(module, 9, np.random.default_rng(0))
    before = oracle.run(module, arguments)
    after = oracle.run(parse(lowered, "lowered", context()), arguments)
    np.testing.assert_array_equal(after["index"], before["index"])
    np.testing.assert_allclose(after["weight"], before["weight"], rtol=1e-12)


def test_a_linear_that_does_not_start_at_zero_stays_in_the_row_program() -> None:
    text = ROUTER.replace("outs(%zero5 : tensor<5xf32>)", "outs(%ones : tensor<5xf32>)")
    ones = "      %ones = arith.constant dense<1.0> : tensor<5xf32>\n      %zero5 ="
    lowered, report = run(text.replace("      %zero5 =", ones), "hoist-router", "canonicalize")
    assert "moe.matmul" not in lowered
    assert any("start at zero" in str(remark) for remark in report.remarks.entries)


def test_weights_of_different_formats_share_no_matmul() -> None:
    text = (IR / "quantised_different_shared.mlir").read_text()
    for line in [line for line in text.splitlines() if "(%wu)" in line or "(%wuc" in line]:
        text = text.replace(line, line.replace("int4", "int8"))
    lowered, _ = run(text, "fuse-shared-experts", "expand-experts", "interleave-weights")
    assert lowered.count('"moe.grouped_matmul"(') == 2 + 2 + 1  # gate, up, down; gate with up, down
