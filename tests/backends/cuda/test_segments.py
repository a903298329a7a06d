"""Products whose inner dimension is put together: how gradients of several linears go back through one matmul."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from moec.oracle import routing
from tests.backends.cuda.calls import Function, exact
from tests.backends.cuda.products import DTYPES, error

EXPERTS, COLUMNS, SLOTS = 3, 72, 2


def _module(inner: int, type_: str) -> str:
    """y = g wg + u wu for the rows of a plan, with one matmul over both."""
    rows, weight = f"tensor<?x{inner}x{type_}>", f"tensor<{EXPERTS}x{inner}x{COLUMNS}x{type_}>"
    plan, both = f"tensor<{EXPERTS + 1}xi32>", f"tensor<?x{2 * inner}x{type_}>"
    weights = f"tensor<{EXPERTS}x{2 * inner}x{COLUMNS}x{type_}>"
    inputs = {"g": rows, "u": rows, "s": "tensor<?xi32>"}
    parameters = {"o": plan, "wg": weight, "wu": weight}
    arguments = [f'%{n}: {t} {{moe.name = "{n}", moe.role = "input"}}' for n, t in inputs.items()]
    arguments += [f'%{n}: {t} {{moe.name = "{n}", moe.role = "parameter"}}' for n, t in parameters.items()]
    return f"""
module attributes {{moe.layer = "L"}} {{
  func.func @L({", ".join(arguments)}) -> (tensor<?x{COLUMNS}xf32> {{moe.name = "y"}}) {{
    %x = tensor.concat dim(1) %g, %u : ({rows}, {rows}) -> {both}
    %w = tensor.concat dim(1) %wg, %wu : ({weight}, {weight}) -> {weights}
    %y = "moe.grouped_matmul"(%x, %o, %s, %w) ({{
    ^bb0(%a: f32):
      "moe.yield"(%a) : (f32) -> ()
    }}) {{gather = false, operandSegmentSizes = array<i32: 1, 1, 1, 1>, slots_per_token = {SLOTS} : i64, transposed}}
      : ({both}, {plan}, tensor<?xi32>, {weights}) -> tensor<?x{COLUMNS}xf32>
    return %y : tensor<?x{COLUMNS}xf32>
  }}
}}"""


@pytest.mark.parametrize(("inner", "type_"), [(72, "bf16"), (19, "f32")])
def test_two_operands_beside_each_other(inner: int, type_: str) -> None:
    function = Function(_module(inner, type_), "sm_90a")
    for tokens in (3, 80, 300):
        random = torch.Generator().manual_seed(tokens)
        index = torch.rand(tokens, EXPERTS, generator=random).topk(SLOTS).indices.int()
        offsets, slots = routing.plan(index.numpy(), EXPERTS)
        shapes = {"g": (len(slots), inner), "u": (len(slots), inner)}
        shapes |= {"wg": (EXPERTS, inner, COLUMNS), "wu": (EXPERTS, inner, COLUMNS)}
        given = {name: torch.randn(shape, generator=random).to(DTYPES[type_]) for name, shape in shapes.items()}
        given |= {"o": torch.from_numpy(offsets.astype(np.int32)), "s": torch.from_numpy(slots.astype(np.int32))}
        expert = np.repeat(np.arange(EXPERTS), np.diff(offsets))
        g, u, wg, wu = (exact(given[name]) for name in ("g", "u", "wg", "wu"))
        wanted = np.einsum("rk,rkn->rn", g, wg[expert]) + np.einsum("rk,rkn->rn", u, wu[expert])
        found = function(given, tokens * SLOTS)["y"]  # in plan order: as many rows as slots
        assert error(found[: len(slots)], wanted) < 1e-5
