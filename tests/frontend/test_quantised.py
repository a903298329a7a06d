"""Formats of experts: what they mean, which parameters a layer then has, and files of counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moec import oracle, passes
from moec.diagnostics import Source
from moec.dialect import context
from moec.errors import DiagnosticError
from moec.frontend import load_layer, load_layer_text, lower
from moec.frontend.model import Layer
from moec.oracle.quantised import dequantize, quantize, quantize_rows
from moec.pipeline.ir_text import parse, show

D, FF, E, T = 24, 12, 6, 9


def layer(format: str, *statements: str, folder: Path = Path()) -> Layer:
    lines = "\n".join(f"  {one}" for one in statements)
    text = f"""edition 1
layer Demo(d = {D}, ff = {FF}) {{
  router softmax_top(2)
  experts routed[{E}] = swiglu(d, ff) : {format}
{lines}
}}"""
    return load_layer_text(Source("demo.moe", text), folder)


def arguments(given: Layer, rng: np.random.Generator) -> dict[str, np.ndarray]:
    made = {}
    for one in (*given.inputs, *given.parameters):
        shape = [T if n is None else n for n in one.shape]
        if one.dtype == "i8":
            made[one.name] = rng.integers(-8, 8, shape)
        else:
            made[one.name] = rng.standard_normal(shape).astype(np.float32)
    return made


def stored(weights: np.ndarray, how: tuple[str, int | None] | None) -> np.ndarray:
    """Weights as a format keeps them; a format is its codes and its group, with f32 scales."""
    if how is None:
        return weights
    from torch_mlir import ir

    with context(), ir.Location.unknown():
        codes, scales = quantize(weights, how[0], weights.shape[2] // how[1] if how[1] else 1, ir.F32Type.get())
    return dequantize(codes, scales)


def by_hand(a: dict[str, np.ndarray], formats: list[Any], int8_rows: bool = False) -> np.ndarray:
    """The layer in float64, expert by expert; `formats` has one an expert, None where it is not quantised."""
    x = a["x"].astype(np.float64)
    logits = x @ a["router.logits.weight"].T.astype(np.float64)
    p = np.exp(logits - logits.max(-1, keepdims=True))
    pick = np.argsort(-p, -1, kind="stable")[:, :2]
    y = np.zeros_like(x)
    for e, how in enumerate(formats):
        rows = quantize_rows if int8_rows and how else np.asarray
        gate, up, down = (stored(a[f"routed.{n}.weight"][e : e + 1], how)[0] for n in ("gate", "up", "down"))
        g = rows(x) @ gate.T
        h = (g / (1 + np.exp(-g)) * (rows(x) @ up.T)).astype(np.float32 if int8_rows else np.float64)
        weight = np.where(pick == e, np.take_along_axis(p, pick, -1), 0).sum(-1)
        weight = weight / np.take_along_axis(p, pick, -1).sum(-1)
        y += weight[:, None] * (rows(h) @ down.T)
    return y


INT4, INT8, TERNARY, FP8 = ("int4", 6), ("int8", None), ("ternary", None), ("fp8_e4m3", 6)

LAYERS: list[tuple[str, tuple[str, ...], list[Any]]] = [
    ("int8(per = channel, x = f32)", (), [INT8] * E),
    ("int4(group = 6, scale = f32, x = f32)", (), [INT4] * E),
    ("fp8_e4m3(group = 6, scale = f32, x = f32)", (), [FP8] * E),
    ("ternary(x = f32)", ("approx rows as int8",), [TERNARY] * E),
    ("f32", ("quantize experts(routed, 1, 3..4) as int8",), [None, INT8, None, INT8, INT8, None]),
    (
        "int4(group = 6, scale = f32, x = f32)",
        (
            'quantize coldest(routed, 2, by = "counts.json") as ternary',
            "quantize experts(routed, 0) as int8",
            "approx rows as int8",
        ),
        [INT8, INT4, INT4, TERNARY, INT4, TERNARY],
    ),
]


@pytest.mark.parametrize(("format", "statements", "formats"), LAYERS)
def test_meaning(format: str, statements: tuple[str, ...], formats: list[Any], tmp_path: Path) -> None:
    (tmp_path / "counts.json").write_text("[9, 3, 2, 1.5, 2, 0]")
    given = layer(format, *statements, folder=tmp_path)
    module = lower(given, context())
    a = arguments(given, np.random.default_rng(3))
    want = by_hand(a, formats, given.int8_rows)
    # an int8 row rounds at a half: where the two sides' h differs in its last bits, a code may differ by one
    tolerance = 1e-2 if given.int8_rows else 1e-9
    np.testing.assert_allclose(oracle.run(module, a)["y"], want, rtol=tolerance, atol=tolerance)
    again = parse(show(module), "printed", context())
    passes.run(again, passes.parse_pipeline(passes.DEFAULT_PIPELINE))
    np.testing.assert_allclose(oracle.run(again, a)["y"], oracle.run(module, a)["y"], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("format", "scale", "shapes"),
    [
        ("int8(prequantized = true)", "f32", [(E, FF), (E, FF), (E, D)]),
        ("int4(group = 6, prequantized = true)", "bf16", [(E, FF, 4), (E, FF, 4), (E, D, 2)]),
        ("ternary(group = 12, scale = f32, prequantized = true)", "f32", [(E, FF, 2), (E, FF, 2), (E, D, 1)]),
        ("fp8_e4m3(per = channel, prequantized = true)", "f32", [(E, FF), (E, FF), (E, D)]),
    ],
)
def test_given_codes_and_scales(format: str, scale: str, shapes: list[tuple[int, ...]]) -> None:
    given = layer(format)
    dtype = "f8E4M3FN" if "fp8" in format else "i8"
    codes = {one.name: one for one in given.parameters if one.dtype == dtype}
    assert {name: one.shape for name, one in codes.items()} == {
        "routed.gate.weight": (E, FF, D),
        "routed.up.weight": (E, FF, D),
        "routed.down.weight": (E, D, FF),
    }
    scales = [one for one in given.parameters if one.name.endswith(".scale")]
    assert [one.name for one in scales] == ["routed.gate.scale", "routed.up.scale", "routed.down.scale"]
    assert [one.shape for one in scales] == shapes
    assert {str(one.dtype) for one in scales} == {scale}
    assert given.dtype == "bf16"
    a = arguments(given, np.random.default_rng(5))
    weights = {}
    for name in codes:
        s = a[name.replace("weight", "scale")]
        weights[name] = dequantize(a[name], s.reshape(*s.shape[:2], -1))
    plain = {**{k: v for k, v in a.items() if not k.endswith("scale")}, **weights}
    want = oracle.run(lower(layer("f32"), context()), plain)["y"]
    rounding = 2**-6  # x, h and y are bf16 here
    np.testing.assert_allclose(
        oracle.run(lower(given, context()), a)["y"], want, rtol=rounding, atol=rounding * np.abs(want).max()
    )


def test_what_is_not_quantised_keeps_its_dtype() -> None:
    text = """edition 1
expert mine(d, ff) {
  gate = linear(x, 1) : bf16
  h    = linear(x, ff, bias = true)
  s    = param(ff)
  y    = sigmoid(gate) * linear(h * s, d)
}
layer Demo(d = 8, ff = 4) {
  router softmax_top(1)
  experts routed[3] = mine(d, ff) : int8(prequantized = true)
}"""
    given = load_layer_text(Source("demo.moe", text))
    dtypes = {one.name.removeprefix("routed."): str(one.dtype) for one in given.parameters}
    assert dtypes == {
        "router.logits.weight": "f32",
        "gate.weight": "bf16",
        "h.weight": "i8",
        "h.scale": "f32",
        "h.bias": "bf16",
        "s": "bf16",
        "linear_0.weight": "i8",
        "linear_0.scale": "f32",
    }
    assert lower(given, context()).operation.verify()


def test_equal_counts_make_the_higher_number_colder(tmp_path: Path) -> None:
    (tmp_path / "counts.json").write_text("[1, 0, 2, 1, 1, 3]")
    given = layer("int8", 'quantize coldest(routed, 3, by = "counts.json") as int4(group = 2)', folder=tmp_path)
    assert [subset.numbers for subset in given.routed.subsets] == [(0, 2, 5), (1, 3, 4)]
    assert given.sources[-1].name == str(tmp_path / "counts.json")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1, 2", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("{}", "it is no array"),
        ("[1, 2, 3]", "an array of 3"),
        ("[1, 2, 3, 4, 5, true]", "element 5 is true"),
        ("[1, 2, 3, -4, 5, 6]", "element 3 is -4"),
        ("[1, 2, 3, 1e999, 5, 6]", "element 3 is Infinity"),
        ("[1, 2, NaN, 4, 5, 6]", "element 2 is NaN"),
        ("[1, 2, 3, 4, 5, 1" + "0" * 400 + "]", "element 5 is 10000000000000000000..."),
        (json.dumps(["a" * 5000, 1, 2, 3, 4, 5]), "element 0 is"),
        ("[" + "1," * 3_000_000 + "1]", "more than"),
    ],
)
def test_files_of_counts_that_are_none(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "counts.json").write_text(text)
    with pytest.raises(DiagnosticError) as caught:
        layer("int8", 'quantize coldest(routed, 3, by = "counts.json") as int4(group = 2)', folder=tmp_path)
    assert [one.code for one in caught.value.diagnostics] == ["E0422"]
    assert said in str(caught.value)


def test_paths_are_relative_to_the_layers_file(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "counts.json").write_text("[3, 2, 1]")
    text = """edition 1
layer Demo(d = 8, ff = 4, cold = 1) {
  router softmax_top(1)
  experts routed[3] = swiglu(d, ff) : int8
  quantize coldest(routed, cold, by = "a/counts.json") as ternary
}
"""
    path = tmp_path / "demo.moe"
    path.write_text(text)
    assert load_layer(path).routed.subsets[1].numbers == (2,)
    assert load_layer(path, defines={"cold": "2"}).routed.subsets[1].numbers == (1, 2)
    with pytest.raises(DiagnosticError, match="keeps the group's format"):
        load_layer(path, defines={"cold": "3"})
