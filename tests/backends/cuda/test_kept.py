"""What of a layer lies on a device: the compiler and the manifest say the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from torch_mlir import ir

from moec.artifact.cuda import on_device
from moec.artifact.manifest import Weight
from moec.backends.base import Unsupported
from moec.backends.cpu.layer import prepare
from moec.backends.cuda.arch import ARCHITECTURES
from moec.backends.cuda.bundle import bundles
from moec.backends.cuda.kept import kept
from moec.pipeline import Compilation
from moec.pipeline.describe_quantised import quantised

FILE = """edition 1
layer Kept(d = 96, ff = 64) {{
  router softmax_top(2) : f32
  experts routed[8] = {} : {}
  shared common = {} : {}
  {}
}}
"""
OWN = """
expert own(d, ff) {
  gate = linear(x, ff) : bf16
  wide = linear(x, ff) : bf16
  up   = linear(x, ff)
  y    = linear(gelu(gate) * up * wide, d)
}
"""
INT4 = "int4(group = 32{})"
MIXED = "quantize experts(routed, 1..2, 5) as int4(group = 32)\n  quantize experts(routed, 0, 7) as ternary"


def compilation(
    folder: Path, stored: str, shared: str = "bf16", more: str = "", body: str = "swiglu(d, ff)"
) -> Compilation:
    (folder / "layer.moe").write_text(FILE.format(body, stored, body, shared, more))
    return Compilation(folder / "layer.moe", target="cuda:sm_80")


CASES = {
    "floats": ("bf16", "bf16", ""),
    "made": (INT4.format(""), "ternary", ""),
    "given": (INT4.format(", prequantized = true"), "int8(per = channel, prequantized = true)", ""),
    "given alike": (INT4.format(", prequantized = true"), INT4.format(", prequantized = true"), ""),
    "some": ("bf16", "bf16", MIXED),
    "some of each": ("int8", "int8", MIXED),
}


@pytest.mark.parametrize("case", CASES)
def test_the_manifest_says_the_same(case: str, tmp_path: Path) -> None:
    module = compilation(tmp_path, *CASES[case]).kernels
    with module.context:
        _copy, (layer, *_) = prepare(module)
        found = [(one.name, one.dims, one.element) for one in kept(layer)]
        how = quantised(layer.function)
        types = [(one, one.type) for one in layer.parameters]
        weights = [
            Weight(one.name, tuple(type_.get_dim_size(axis) for axis in range(type_.rank)), str(type_.element_type), "")
            for one, type_ in types
        ]
    assert [(one.name, one.shape, one.dtype) for one in on_device(weights, how)] == found
    if case == "some":
        assert found[1] == ("routed.gate.weight", (3, 64, 96), "bf16")
    if case == "some of each":
        assert found[1] == ("routed.gate.weight", (0, 64, 96), "bf16")
        pairs = [(dims, element) for name, dims, element in found if name.endswith("of routed.gate.weight")]
        assert pairs == [
            ((2, 64, 32), "i8"), ((2, 64), "f32"), ((3, 64, 64), "i8"), ((3, 3, 64), "bf16"), ((3, 64, 96), "i8"),
            ((3, 64), "f32"),
        ]  # fmt: skip


def test_biases_of_some_experts_are_found_in_those_of_all(tmp_path: Path) -> None:
    text = compilation(tmp_path, "bf16", "bf16", MIXED, "mlp_gelu(d, ff, bias = true)").emit("cuda")
    tables = set(re.findall(r"MOEC_CONSTANT int run_product\w*_experts\w*\[\] = \{(.*)\};", text))
    assert tables == {"3, 4, 6", "1, 2, 5", "0, 7"}


def own(folder: Path) -> ir.Module:
    source = FILE.format("own(d, ff)", "bf16", "swiglu(d, ff)", "bf16", MIXED)
    (folder / "layer.moe").write_text(source + OWN)
    return Compilation(folder / "layer.moe", target="cuda:sm_80").kernels


def test_weights_that_no_format_takes_are_whole(tmp_path: Path) -> None:
    module = own(tmp_path)
    with module.context:
        (bundle,) = bundles(module, [ARCHITECTURES["sm_80"]])
        floats = {one.name: one.dims for one in bundle.tensors if one.form == "floats"}
    assert floats["routed.gate.weight"] == floats["routed.wide.weight"] == (8, 64, 96)
    assert floats["routed.up.weight"] == (3, 64, 96)


def test_they_are_refused_of_experts_that_share_no_plan(tmp_path: Path) -> None:
    module = own(tmp_path)
    lines = str(module).splitlines()
    added = [n for n, line in enumerate(lines) if "arith.addf" in line and 'kind = "token"' in lines[n - 1]]
    lines[added[0]] = lines[added[0]].replace("arith.addf", "arith.mulf")  # sums of formats are multiplied
    with module.context, ir.Location.unknown():
        module = ir.Module.parse("\n".join(lines))
        with pytest.raises(Unsupported, match="some experts of a parameter are read in another way"):
            bundles(module, [ARCHITECTURES["sm_80"]])
