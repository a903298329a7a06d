"""Gradients of weights on the simulator against float64."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from moec.oracle import routing
from tests.backends.cuda.calls import Function, exact
from tests.backends.cuda.products import DTYPES, error

TOLERANCE = {"bf16": 2**-8, "f16": 2**-11, "f32": 1e-5}


def _argument(name: str, type_: str) -> str:
    # what has no leading dimension of tokens cannot be an input
    role = "input" if "?" in type_ else "parameter"
    return f'%{name}: {type_} {{moe.name = "{name}", moe.role = "{role}"}}'


def gradients(experts: int, n: int, k: int, slots: int, a: str, b: str) -> str:
    """d = the grouped gradient of a [R, n], in plan order, and b [T, k], in token order; e = that of c [T, n] and b."""
    left, right, dense = f"tensor<?x{n}x{a}>", f"tensor<?x{k}x{b}>", f"tensor<?x{n}x{a}>"
    plan, d, e = f"tensor<{experts + 1}xi32>", f"tensor<{experts}x{n}x{k}x{a}>", f"tensor<1x{n}x{k}xf32>"
    inputs = {"a": left, "b": right, "c": dense, "o": plan, "s": "tensor<?xi32>"}
    return f"""
module attributes {{moe.layer = "L"}} {{
  func.func @L({", ".join(_argument(name, type_) for name, type_ in inputs.items())})
      -> ({d} {{moe.name = "d"}}, {e} {{moe.name = "e"}}) {{
    %d = "moe.weight_gradient"(%a, %b, %o, %s)
      {{gather_a = false, gather_b = true, slots_per_token = {slots} : i64}}
      : ({left}, {right}, {plan}, tensor<?xi32>) -> {d}
    %e = "moe.dense_weight_gradient"(%c, %b) : ({dense}, {right}) -> {e}
    return %d, %e : {d}, {e}
  }}
}}"""


compiled = cache(lambda arch, *sizes: Function(gradients(*sizes), arch))


def operands(
    experts: int, n: int, k: int, slots: int, a: str, b: str, tokens: int, kind: str
) -> dict[str, torch.Tensor]:
    """Random ones; `one` gives every row to the last expert, `dropped` leaves slots empty."""
    random = torch.Generator().manual_seed(tokens)
    scores = torch.rand(tokens, experts, generator=random)
    if kind == "one":
        scores[:, -1] += 2
    index = scores.topk(slots, -1).indices.int()
    if kind == "dropped":
        index[torch.rand(tokens, slots, generator=random) < 0.6] = -1
    offsets, order = (torch.from_numpy(np.ascontiguousarray(x, np.int32)) for x in routing.plan(index.numpy(), experts))
    shapes = {"a": (len(order), n, a), "b": (tokens, k, b), "c": (tokens, n, a)}
    made = {
        name: torch.randn(rows, columns, generator=random).to(DTYPES[type_])
        for name, (rows, columns, type_) in shapes.items()
    }
    return {**made, "o": offsets, "s": order}


@pytest.mark.parametrize(
    ("arch", "sizes"),
    [
        ("sm_80", (4, 136, 72, 2, "bf16", "bf16")),
        ("sm_90a", (4, 136, 72, 2, "bf16", "bf16")),
        ("sm_90a", (2, 8, 264, 1, "f16", "f16")),
        ("sm_80", (3, 17, 70, 3, "f32", "bf16")),
    ],
    ids=str,
)
def test_sums_of_outer_products(arch: str, sizes: tuple[int, int, int, int, str, str]) -> None:
    experts, n, k, slots, type_, _ = sizes
    for tokens, kind in [(0, "even"), (1, "even"), (40, "dropped"), (300, "one")]:
        given = operands(*sizes, tokens, kind)
        found = compiled(arch, *sizes)(given, tokens, tokens)
        a, b, c = (exact(given[name]) for name in "abc")
        expert = np.repeat(np.arange(experts), np.diff(given["o"].numpy()))
        wanted = np.zeros((experts, n, k))
        for e in range(experts):
            wanted[e] = a[expert == e].T @ b[given["s"].numpy()[expert == e] // slots]
        assert error(found["d"], wanted) < TOLERANCE[type_] or not wanted.any(), (tokens, kind)
        assert not found["d"][~wanted.any((1, 2))].any()  # experts without rows
        assert error(found["e"], (c.T @ b)[None]) < TOLERANCE["f32"] or not tokens
