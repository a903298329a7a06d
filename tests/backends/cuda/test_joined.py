"""Products of experts that are stored in different ways, by one launch, on the simulator against the oracle."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest
import torch

from moec.backends.cuda.kernel import Kernel
from moec.runtime.quantize import quantize
from tests.backends.cuda.calls import Function, exact, orders
from tests.backends.cuda.simulator import Fault, SimulatorError

INNER, COLUMNS, PER_TOKEN = 80, 48, 2
FLOATS, CODES = (0, 3, 4), (1, 2, 5)
"""Experts of each kind."""


def text(lhs: str = "bf16") -> str:
    """Rows of both kinds of experts; those of codes are halved, and each has the bias of its expert."""
    x, y = f"tensor<?x{INNER}x{lhs}>", f"tensor<?x{COLUMNS}x{lhs}>"
    floats, bias = f"tensor<3x{COLUMNS}x{INNER}x{lhs}>", f"tensor<3x{COLUMNS}xf32>"
    codes, scales = f"tensor<3x{COLUMNS}x{INNER}xi8>", f"tensor<3x{COLUMNS}x1xf32>"
    whole = f"tensor<3x{COLUMNS}x{INNER}xf32>"
    index = f"tensor<?x{PER_TOKEN}xi32>"
    named = lambda name: f'{{moe.name = "{name}", moe.role = "parameter"}}'  # noqa: E731

    def product(result: str, weight: str, type_: str, bias_name: str, part: tuple[int, ...], factor: float) -> str:
        rounded = "%v" if lhs == "f32" else "%q"
        line = "" if lhs == "f32" else f"%q = arith.truncf %v : f32 to {lhs}"
        return f"""
    %{result} = "moe.grouped_matmul"(%x, %o, %s, %{weight}) ({{
    ^bb0(%a: f32):
      %f = arith.constant {factor} : f32
      %b = "moe.element"(%{bias_name}) {{kind = "column"}} : ({bias}) -> f32
      %h = arith.mulf %a, %f : f32
      %v = arith.addf %h, %b : f32
      {line}
      "moe.yield"({rounded}) : ({lhs}) -> ()
    }}) {{gather = true, operandSegmentSizes = array<i32: 1, 1, 1, 1>, part = array<i32: {", ".join(map(str, part))}>,
        slots_per_token = {PER_TOKEN} : i64}} : ({x}, tensor<7xi32>, tensor<?xi32>, {type_}) -> {y}"""

    return f"""
module attributes {{moe.layer = "L"}} {{
  func.func @L(%x: {x} {{moe.name = "x", moe.role = "input"}}, %i: {index} {{moe.name = "i", moe.role = "input"}},
      %w: {floats} {named("w")}, %b0: {bias} {named("b0")}, %c: {codes} {named("c")}, %k: {scales} {named("k")},
      %b1: {bias} {named("b1")}) -> ({y} {{moe.name = "y"}}) {{
    %o, %s = "moe.plan"(%i) {{experts = 6 : i64, direct_max_tokens = 0 : i64}}
      : ({index}) -> (tensor<7xi32>, tensor<?xi32>)
    %d = "moe.dequantize"(%c, %k) {{format = "int8"}} : ({codes}, {scales}) -> {whole}
    {product("p", "w", floats, "b0", FLOATS, 1.0)}
    {product("r", "d", whole, "b1", CODES, 0.5)}
    %y = "moe.join_rows"(%o, %p, %r) {{operandSegmentSizes = array<i32: 1, 2>}} : (tensor<7xi32>, {y}, {y}) -> {y}
    return %y : {y}
  }}
}}"""


def inputs(tokens: int, kind: str, dtype: torch.dtype, seed: int) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    index = torch.rand(tokens, 6, generator=random).topk(PER_TOKEN, -1).indices.int()
    if kind != "even":
        index[:] = torch.tensor(FLOATS[:2] if kind == "floats" else CODES[1:], dtype=torch.int32)
    codes, scales = quantize(torch.randn(3, COLUMNS, INNER, generator=random), "int8", group=None, scale=torch.float32)
    return {
        "x": torch.randn(tokens, INNER, generator=random).to(dtype),
        "i": index,
        "w": torch.randn(3, COLUMNS, INNER, generator=random).to(dtype),
        "b0": torch.randn(3, COLUMNS, generator=random),
        "c": codes,
        "k": scales,
        "b1": torch.randn(3, COLUMNS, generator=random),
    }


def difference(
    function: Function, tokens: int, kind: str, dtype: torch.dtype = torch.bfloat16, order: int = 0
) -> float:
    """The largest, in units of the largest value."""
    given = inputs(tokens, kind, dtype, tokens)
    expected = dict(given)
    expected["k"] = given["k"].unsqueeze(-1)
    want = function.expected(expected)["y"]
    found = exact(function(given, tokens, order)["y"])[: len(want)]
    return float(np.nan_to_num(np.abs(found - want), nan=np.inf).max(initial=0.0) / max(np.abs(want).max(initial=0), 1))


def products(function: Function) -> list[Kernel]:
    return [kernel for kernel in function.kernels if "_product_" in kernel.name]


@pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])
def test_one_launch_has_the_products_of_both_kinds(arch: str) -> None:
    function = Function(text(), arch)
    few, many = products(function)
    assert few.tokens[1] == many.tokens[0]
    assert many.tokens[0] is not None
    assert "_bf16_int8_few" in few.name
    for kind, order in zip(("even", "floats", "codes"), orders(), strict=True):
        for tokens in (0, 1, 30, many.tokens[0] + 90):
            assert difference(function, tokens, kind, order=order) < 8e-3


def test_plain_cores_have_both_kinds() -> None:
    function = Function(text("f32"), "sm_80")
    (kernel,) = products(function)
    assert "_f32_int8_f32" in kernel.name
    assert difference(function, 70, "even", torch.float32) < 1e-5


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("return block_index() - share * count();", "return block_index();"),  # a share begins where the grid does
        ("return grid_blocks() / shares;", "return grid_blocks();"),
        ("return offsets[Experts::number(expert)];", "return offsets[expert];"),
        ("return offsets[Experts::number(expert) + 1];", "return offsets[Experts::number(expert + 1)];"),
    ],
)
def test_faults_are_found(right: str, wrong: str) -> None:
    function = Function(text(), "sm_80", fault=Fault("moec/matmul/work.cuh", right, wrong))
    with suppress(SimulatorError):
        assert difference(function, 30, "even") > 0.1
