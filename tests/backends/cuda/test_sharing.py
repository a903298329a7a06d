"""Experts of different formats share a plan, and one that all tokens choose needs none: with the same meaning, by the
oracle, and with fewer launches."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_mlir import ir

from moec import oracle
from moec.backends.cuda.arch import ARCHITECTURES
from moec.backends.cuda.bundle import bundles
from moec.backends.cuda.fewer_launches import with_fewer_launches
from moec.pipeline import Compilation

FORMATS = ("f32", "int8", "int4", "ternary")


def compilation(folder: Path, body: str, d: int = 16, ff: int = 8, k: int = 2) -> Compilation:
    path = folder / "layer.moe"
    path.write_text(f"edition 1\nlayer L(d = {d}, ff = {ff}) {{\n  router softmax_top({k}) : f32\n{body}}}\n")
    return Compilation(path, target="cuda:sm_90a")


def named(module: ir.Module, name: str) -> list[ir.Operation]:
    found: list[ir.Operation] = []

    def look(op: ir.Operation) -> ir.WalkResult:
        if op.name == name:
            found.append(op)
        return ir.WalkResult.ADVANCE

    module.operation.walk(look)
    return found


def arguments(module: ir.Module, tokens: int, seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    (function,) = named(module, "func.func")
    made = {}
    for value, names in zip(function.regions[0].blocks[0].arguments, function.attributes["arg_attrs"], strict=True):
        shape = [tokens if size < 0 else size for size in ir.RankedTensorType(value.type).shape]
        made[ir.StringAttr(names["moe.name"]).value] = random.standard_normal(shape)
    return made


def means_the_same(module: ir.Module, tolerance: float, seed: int = 1) -> ir.Module:
    """The module as it runs on a device, once the oracle has said that it means the same."""
    with module.context, ir.Location.unknown():
        shared = with_fewer_launches(module)
        assert shared.operation.verify()
    arrays = arguments(module, 9, seed)
    want, found = oracle.run(module, arrays), oracle.run(shared, arrays)
    assert want.keys() == found.keys()
    for name, value in want.items():
        assert np.linalg.norm(found[name] - value) <= tolerance * np.linalg.norm(value)
    return shared


@settings(max_examples=6, deadline=None)
@given(
    kinds=st.lists(st.sampled_from(FORMATS), min_size=2, max_size=7),
    expert=st.sampled_from(("swiglu", "mlp_gelu")),
    rounded=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_any_experts_may_have_any_format(
    tmp_path_factory: pytest.TempPathFactory, kinds: list[str], expert: str, rounded: bool, seed: int
) -> None:
    group = min(kinds, key=FORMATS.index)  # at least one expert keeps what the group has
    options = "" if group == "f32" else "(per = channel, x = f32)"
    body = f"  experts routed[{len(kinds)}] = {expert}(d, ff) : {group}{options}\n"
    for format in sorted({*kinds} - {group}):
        numbers = ", ".join(str(n) for n, kind in enumerate(kinds) if kind == format)
        body += f"  quantize experts(routed, {numbers}) as {format}(per = channel)\n"
    body += "  approx rows as int8\n" if rounded and set(kinds) != {"f32"} else ""
    module = compilation(tmp_path_factory.mktemp("any"), body).kernels
    shared = means_the_same(module, 1e-12, seed)
    assert len(named(shared, "moe.plan")) == 1  # of any number of formats
    if len(set(kinds)) > 1:
        assert len(named(shared, "moe.join_rows")) == 2
        assert len(named(shared, "moe.sum_rows")) == 1
        assert len(named(shared, "moe.quantize_rows")) <= 2


@pytest.mark.parametrize(
    "body",
    [
        "  experts routed[5] = mlp_gelu(d, ff, bias = true) : bf16\n  quantize experts(routed, 0, 4) as int8\n"
        "  shared common = swiglu(d, ff) : bf16\n",
        "  experts routed[5] = mlp_gelu(d, ff, bias = true) : bf16\n"
        "  shared common = sigmoid(linear(x, 1)) * mlp_gelu(d, 3 * ff, bias = true) : bf16\n",
        "  experts routed[5] = swiglu(d, ff) : bf16\n  quantize experts(routed, 0) as int4(per = channel)\n"
        "  tokens capacity(1.0, order = score)\n",
    ],
)
def test_biases_shared_experts_and_capacities(body: str, tmp_path: Path) -> None:
    shared = means_the_same(compilation(tmp_path, body).kernels, 1e-2)
    assert len(named(shared, "moe.plan")) == 1
    assert len(named(shared, "moe.join_rows")) == (2 if "quantize" in body else 0)


@pytest.mark.parametrize(("size", "plans"), [(32, 1), (24, 2)])
def test_several_shared_experts_have_products_of_their_own_where_they_are_aligned(
    size: int, plans: int, tmp_path: Path
) -> None:
    body = f"  experts routed[5] = swiglu(d, ff) : bf16\n  shared common[3] = mlp_gelu(d, {size}, bias = true) : bf16\n"
    shared = means_the_same(compilation(tmp_path, body).kernels, 1e-2)
    assert len(named(shared, "moe.plan")) == plans
    assert len(named(shared, "moe.matmul")) == (1 if plans == 2 else 1 + 3 * 2)


@pytest.mark.parametrize("last", [True, False])
def test_sums_that_are_not_added_up_stay_apart(last: bool, tmp_path: Path) -> None:
    body = "  experts routed[4] = swiglu(d, ff) : f32\n  quantize experts(routed, 0) as int8\n"
    body += "  quantize experts(routed, 1) as ternary\n"
    module = compilation(tmp_path, body).kernels
    lines = str(module).splitlines()
    added = [n for n, line in enumerate(lines) if "arith.addf" in line and '"moe.element"' in lines[n - 1]]
    assert len(added) == 2
    if last:
        lines[added[1]] = lines[added[1]].replace("arith.addf", "arith.mulf")
    else:  # what is given is more than the sums so far
        made = re.match(r" *(%\w+) =", lines[added[0]])
        assert made
        lines.insert(added[0] + 1, f"%twice = arith.addf {made[1]}, {made[1]} : f32")
        lines[added[0] + 2] = lines[added[0] + 2].replace(made[1], "%twice")
    with module.context, ir.Location.unknown():
        module = ir.Module.parse("\n".join(lines))
    shared = means_the_same(module, 0.0)
    assert len(named(shared, "moe.plan")) == 3
    assert not named(shared, "moe.join_rows")


OWN = """edition 1
expert weighed(d, ff) {{
  s = linear(x, {}, bias = true) : {}
  up = linear(x, ff, bias = true)
  y = {} * linear(gelu(up), d, bias = true)
}}
layer L(d = 16, ff = 8) {{
  router softmax_top(2) : f32
  experts routed[6] = weighed(d, ff) : f32
  quantize experts(routed, 1..2, 5) as int8
  quantize experts(routed, 0) as ternary
}}
"""


def test_a_linear_with_a_dtype_of_its_own_is_one_product(tmp_path: Path) -> None:
    (tmp_path / "own.moe").write_text(OWN.format(1, "f32", "sigmoid(s)"))
    module = Compilation(tmp_path / "own.moe", target="cuda:sm_80").kernels
    shared = means_the_same(module, 1e-12)
    assert len(named(shared, "moe.join_rows")) == 2
    assert len([op for op in named(shared, "moe.grouped_matmul") if "part" not in op.attributes]) == 1
    with module.context, ir.Location.unknown():
        (bundle,) = bundles(module, [ARCHITECTURES["sm_80"]])
        weights = {one.name: one.dims for one in bundle.tensors if one.form == "floats"}
    assert weights["routed.s.weight"] == (6, 1, 16)  # whole, and the others that stay floats in pieces
    assert weights["routed.up.weight"] == (2, 8, 16)


AS_WIDE = """edition 1
expert gated(d, ff) {{
  gate = linear(x, ff, bias = true) : {dtype}
  up = linear(x, ff, bias = true)
  y = linear({value}, d)
}}
layer L(d = 32, ff = 16) {{
  router softmax_top(2) : f32
  experts routed[6] = gated(d, ff) : {dtype}
  quantize experts(routed, 1..2, 5) as int8
  quantize experts(routed, 0) as ternary
{approx}}}
"""


@pytest.mark.parametrize("approx", ["", "  approx rows as int8\n"])
@pytest.mark.parametrize("value", ["silu(gate) * up", "up / (1.0 + gate * gate) - gate"])
def test_a_linear_that_stays_floats_beside_others_as_wide_is_one_product(
    value: str, approx: str, tmp_path: Path
) -> None:
    (tmp_path / "own.moe").write_text(AS_WIDE.format(dtype="f32", value=value, approx=approx))
    module = Compilation(tmp_path / "own.moe", target="cuda:sm_80").kernels
    assert max(len(list(op.opview.weights)) for op in named(module, "moe.grouped_matmul")) == 2
    shared = means_the_same(module, 1e-12)
    products = named(shared, "moe.grouped_matmul")
    assert [len(list(op.opview.weights)) for op in products] == [1] * 7
    assert len([op for op in products if "part" not in op.attributes]) == 1
    assert len(named(shared, "moe.join_rows")) == 2
    with module.context, ir.Location.unknown():
        (bundle,) = bundles(module, [ARCHITECTURES["sm_80"]])
        weights = {one.name: one.dims for one in bundle.tensors if one.form == "floats"}
    assert weights["routed.gate.weight"] == (6, 16, 32)
    assert weights["routed.up.weight"] == (2, 16, 32)


TWO = """edition 1
expert gated(d, ff) {{
  a = linear(x, ff, bias = true) : f32
  b = linear(x, ff) : f32
  up = linear(x, ff, bias = true)
  y = linear({value}, d)
}}
layer L(d = 32, ff = 16) {{
  router softmax_top(2) : f32
  experts routed[6] = gated(d, ff) : f32
  quantize experts(routed, 1..2, 5) as int8
  quantize experts(routed, 0) as ternary
{approx}}}
"""


@pytest.mark.parametrize("approx", ["", "  approx rows as int8\n"])
@pytest.mark.parametrize("value", ["silu(a) * b * up", "up * (silu(a) * b)", "b / (1.0 + a * up * a) - a"])
def test_two_linears_that_stay_floats_may_be_multiplied_at_once(value: str, approx: str, tmp_path: Path) -> None:
    (tmp_path / "own.moe").write_text(TWO.format(value=value, approx=approx))
    module = Compilation(tmp_path / "own.moe", target="cuda:sm_80").kernels
    counts = [len(list(op.opview.weights)) for op in named(module, "moe.grouped_matmul")]
    assert max(counts) == 3
    shared = means_the_same(module, 1e-12)
    products = named(shared, "moe.grouped_matmul")
    assert [len(list(op.opview.weights)) for op in products] == [1] * 8
    assert len([op for op in products if "part" not in op.attributes]) == 2
    assert len({str(op.attributes["launch"]) for op in products if "part" not in op.attributes}) == 1
    with module.context, ir.Location.unknown():
        (bundle,) = bundles(module, [ARCHITECTURES["sm_80"]])
        weights = {one.name: one.dims for one in bundle.tensors if one.form == "floats"}
    assert weights["routed.a.weight"] == weights["routed.b.weight"] == (6, 16, 32)
    assert weights["routed.up.weight"] == (2, 16, 32)


LAYERS = {
    "ordinary": ("  experts routed[64] = swiglu(d, ff) : bf16\n", (5, 6, 7, 5)),
    "two formats": (
        "  experts routed[64] = swiglu(d, ff) : bf16\n  quantize experts(routed, 48..63) as int4(group = 32)\n",
        (5, 6, 7, 5),
    ),
    "three formats": (
        "  experts routed[64] = swiglu(d, ff) : int8\n  quantize experts(routed, 0..7) as ternary\n"
        "  quantize experts(routed, 48..63) as int4(group = 32)\n",
        (5, 6, 7, 5),
    ),
    "rounded rows": (
        "  experts routed[64] = swiglu(d, ff) : int8\n  quantize experts(routed, 9..40) as int4(per = channel)\n"
        "  approx rows as int8\n",
        (7, 8, 9, 7),
    ),
    "a shared expert of another size": (
        "  experts routed[64] = swiglu(d, ff) : bf16\n  shared common = swiglu(d, 2816) : bf16\n",
        (5, 6, 7, 5),
    ),
    "one with a gate, smaller": (
        "  experts routed[64] = swiglu(d, ff) : bf16\n"
        "  shared common = sigmoid(linear(x, 1)) * swiglu(d, 200) : bf16\n",
        (5, 6, 7, 5),
    ),
    "two of different sizes": (
        "  shared first = swiglu(d, 1408) : bf16\n  experts routed[64] = swiglu(d, ff) : bf16\n"
        "  shared second = swiglu(d, 512) : bf16\n",
        (5, 6, 7, 5),
    ),
    "a shared expert of another format": (
        "  experts routed[64] = swiglu(d, ff) : int8\n  quantize experts(routed, 48..63) as int4(group = 32)\n"
        "  shared common = swiglu(d, ff) : bf16\n",
        (5, 6, 7, 5),
    ),
    "two shared experts of another format": (
        "  experts routed[64] = swiglu(d, ff) : int4(group = 32)\n  shared common[2] = swiglu(d, ff) : bf16\n",
        (5, 6, 7, 5),
    ),
    "rounded rows, a shared expert of another size": (
        "  experts routed[64] = swiglu(d, ff) : int8\n  shared common = swiglu(d, 2816) : int8\n"
        "  approx rows as int8\n",
        (7, 8, 9, 7),
    ),
    "a capacity": (
        "  experts routed[64] = swiglu(d, ff) : bf16\n  tokens capacity(1.0, order = token)\n",
        (7, 7, 9, 7),
    ),
    "a capacity by score": (
        "  experts routed[64] = swiglu(d, ff) : bf16\n  tokens capacity(1.0, order = score)\n",
        (8, 8, 10, 8),
    ),
}
"""And how many launches a call takes of up to 64 tokens, up to 4096 slots, less than 2048 tokens, and more."""
RANGES = ((1, 64), (65, 512), (513, 2047), (2048, 32768))


@pytest.mark.parametrize("name", LAYERS)
def test_launches(name: str, tmp_path: Path) -> None:
    """The numbers of docs/cuda.md."""
    body, counts = LAYERS[name]
    module = compilation(tmp_path, body, 2048, 1024, 8).kernels
    with module.context, ir.Location.unknown():
        for arch in ("sm_80", "sm_90a"):
            (bundle,) = bundles(module, [ARCHITECTURES[arch]])
            for of_range, count in zip(RANGES, counts, strict=True):
                for tokens in of_range:
                    launched = [k.name for k in bundle.kernels if k.tokens[0] <= tokens < (k.tokens[1] or tokens + 1)]
                    assert len(launched) == count, (tokens, launched)


@pytest.mark.parametrize(("arch", "count"), [("sm_80", 7), ("sm_90a", 9)])
def test_rounded_rows_that_groups_and_channels_multiply_take_two_launches_each(
    arch: str, count: int, tmp_path: Path
) -> None:
    """On sm_90a, for many rows: those of channels by warpgroups, those of small groups by warps."""
    body = "  experts routed[64] = swiglu(d, ff) : int8\n  quantize experts(routed, 9..40) as int4\n"
    body += "  approx rows as int8\n"
    module = compilation(tmp_path, body, 2048, 1024, 8).kernels
    with module.context, ir.Location.unknown():
        (bundle,) = bundles(module, [ARCHITECTURES[arch]])
        assert len([k for k in bundle.kernels if k.tokens[0] <= 4096 < (k.tokens[1] or 4097)]) == count
