"""Experts whose hidden dimension is cut: the parts of their results add up, and what cannot be cut is refused."""

from __future__ import annotations

import numpy as np
import pytest
from torch_mlir import ir

from moec import oracle
from moec.dialect.functions import layer_function
from moec.errors import DiagnosticError
from tests.pieces.modules import cut, graph
from tests.pieces.spread import spread

EXPERTS, TOKENS, WAYS = 6, 23, 2

PROGRAMS = {
    "swiglu": "swiglu(16, 12) : f32",
    "two_layers": "mlp_gelu(16, 16) : bf16",
    "gated": "sigmoid(linear(x, 1)) * swiglu(16, 8) : f32",
    "own": "mine() : f32",
    "codes": "swiglu(16, 16) : int4(group = 8, prequantized = true)",
    "grouped": "mlp_relu(16, 16) : int4(group = 8)",
}
OWN = """expert mine() {
  up = linear(x, 10)
  scale = param(10)
  down = linear(tanh(up * scale) + 0.5, d)
  y = (2.0 * down - down / 4.0) * sigmoid(linear(x, 1))
}
"""


def source(program: str) -> str:
    return (
        f"{OWN}layer L(d = 16) {{\n  router softmax_top(2)\n  experts routed[{EXPERTS}] = {program}\n"
        f"  shared common[2] = {program}\n  shared more = sigmoid(linear(x, 1)) * {program}\n}}"
    )


def values(module: ir.Module, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Random parameters by their names."""
    found = {}
    function = layer_function(module)
    arguments = zip(function.regions[0].blocks[0].arguments, function.attributes["arg_attrs"], strict=True)
    for argument, names in arguments:
        type_ = ir.RankedTensorType(argument.type)
        if not type_.is_dynamic_dim(0):
            codes = str(type_.element_type) == "i8"
            made = rng.integers(-8, 8, type_.shape) if codes else rng.normal(size=type_.shape)
            found[ir.StringAttr(names["moe.name"]).value] = made
    return found


def part(whole: np.ndarray, shape: list[int], number: int, first: int) -> np.ndarray:
    """What position `number` holds of a parameter; experts from `first` on."""
    where = [slice(None)] * len(shape)
    if whole.shape[0] != shape[0]:
        where[0] = slice(first, first + shape[0])
    for axis in range(1, len(shape)):
        if shape[axis] != whole.shape[axis]:
            assert shape[axis] * WAYS == whole.shape[axis]
            where[axis] = slice(number * shape[axis], (number + 1) * shape[axis])
    return whole[tuple(where)]


def parts(piece: ir.Module, given: dict[str, np.ndarray], whole: dict[str, np.ndarray], first: int = 0) -> list:
    """What each part of a piece gives."""
    function = layer_function(piece)
    shapes = {
        ir.StringAttr(names["moe.name"]).value: list(ir.RankedTensorType(a.type).shape)
        for a, names in zip(function.regions[0].blocks[0].arguments, function.attributes["arg_attrs"], strict=True)
    }
    held = [{n: part(v, shapes[n], i, first) for n, v in whole.items() if n in shapes} for i in range(WAYS)]
    return [oracle.run(piece, {**given, **one}) for one in held]


@pytest.mark.parametrize("program", PROGRAMS)
def test_parts_add_up(program: str) -> None:
    rng = np.random.default_rng(0)
    text = source(PROGRAMS[program])
    whole = cut(graph(text), spread(2, EXPERTS))
    pieces = cut(graph(text), spread(2, EXPERTS, shared=("common", "more"), tp=WAYS))
    parameters = values(graph(text), rng)
    given = {
        "rows": rng.normal(size=(TOKENS, 16)),
        "source": rng.integers(0, TOKENS, (TOKENS, 1)),
        "slot": rng.integers(-1, 3, (TOKENS, 1)),
        "weight": rng.random((TOKENS, 1)),
    }
    for first in (0, 3):
        mine = {n: v[first : first + 3] for n, v in parameters.items() if len(v) == EXPERTS and n.startswith("routed")}
        want = oracle.run(whole["experts"], {**given, **mine})["out"]
        found = parts(pieces["experts"], given, {n: parameters[n] for n in mine}, first)
        assert np.abs(want).max() > 0.1
        np.testing.assert_allclose(sum(one["out"] for one in found), want, rtol=1e-9, atol=1e-9)
    shared = {n: v for n, v in parameters.items() if not n.startswith("rout")}
    want = oracle.run(whole["shared"], {"x": given["rows"], **shared})
    found = parts(pieces["shared"], {"x": given["rows"]}, shared)
    for name in want:
        np.testing.assert_allclose(sum(one[name] for one in found), want[name], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("mlp_relu(16, 12, bias = true) : f32", "a bias"),
        ("mlp_relu(16, 13) : f32", "not 2 equal parts"),
        ("relu(linear(x, d)) : f32", "no linear reads what another one gives"),
        ("relu(swiglu(16, 12)) : f32", "not linear in the last linear"),
        ("linear(relu(linear(relu(linear(x, 8)), 8)), d) : f32", "more than two linears"),
        ("linear(softmax(linear(x, 8)), d) : f32", "as a whole"),
        ("mlp_relu(16, 12) : int8(per = channel)", "groups of weights that share a scale"),
        ("mlp_relu(16, 16) : int4(group = 16)", "groups of weights that share a scale"),
        ("linear(linear(x, 16) + x, d) : f32", "reads the token, too"),
    ],
)
def test_what_cannot_be_cut(program: str, why: str) -> None:
    text = f"layer L(d = 16) {{\n  router softmax_top(2)\n  experts routed[{EXPERTS}] = {program}\n}}"
    with pytest.raises(DiagnosticError, match=why) as error:
        cut(graph(text), spread(2, EXPERTS, tp=WAYS))
    assert error.value.diagnostics[0].code == "E0631"
    cut(graph(text), spread(2, EXPERTS))


def test_rows_of_int8_are_not_cut() -> None:
    text = f"layer L(d = 16) {{\n  router softmax_top(2)\n  experts routed[{EXPERTS}] = {PROGRAMS['grouped']}\n"
    with pytest.raises(DiagnosticError, match="rounded to int8 as a whole"):
        cut(graph(text + "  approx rows as int8\n}"), spread(2, EXPERTS, tp=WAYS))


def test_experts_of_several_formats_are_refused() -> None:
    text = (
        f"layer L(d = 16) {{\n  router softmax_top(2)\n  experts routed[{EXPERTS}] = {PROGRAMS['grouped']}\n"
        "  quantize experts(routed, 1, 2) as ternary\n}"
    )
    with pytest.raises(DiagnosticError, match="several formats") as error:
        cut(graph(text), spread(2, EXPERTS))
    assert error.value.diagnostics[0].code == "E0630"
