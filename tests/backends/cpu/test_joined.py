"""Rows and transposed weights that stand beside each other, multiplied as one."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from tests.backends.cpu.artifact import DTYPES, Artifact, aligned, exact
from tests.backends.cpu.native import runnable

VARIANTS = runnable()


def module(experts: int, inner: tuple[int, ...], columns: int, slots: int, dtype: str) -> str:
    """y = sum over slots of sum over parts i of lhs_i [T, inner_i] times weights_i [E, inner_i, columns]."""
    lhs = [f"tensor<?x{n}x{dtype}>" for n in inner]
    weights = [f"tensor<{experts}x{n}x{columns}x{dtype}>" for n in inner]
    index, y = f"tensor<?x{slots}xi32>", f"tensor<?x{columns}xf32>"
    plan = f"tensor<{experts + 1}xi32>, tensor<?xi32>"
    whole = f"tensor<?x{sum(inner)}x{dtype}>", f"tensor<{experts}x{sum(inner)}x{columns}x{dtype}>"
    arguments = [f'%i: {index} {{moe.name = "index", moe.role = "input"}}']
    arguments += [f'%l{i}: {one} {{moe.name = "l{i}", moe.role = "input"}}' for i, one in enumerate(lhs)]
    arguments += [f'%w{i}: {one} {{moe.name = "w{i}", moe.role = "parameter"}}' for i, one in enumerate(weights)]
    left, right = (", ".join(f"%{name}{i}" for i in range(len(inner))) for name in ("l", "w"))
    return f"""
module attributes {{moe.layer = "L"}} {{
  func.func @L(%i: {index} {{moe.name = "index", moe.role = "input"}}) -> ({index} {{moe.name = "same"}}) {{
    return %i : {index}
  }}
  func.func @L_backward({", ".join(arguments)}) -> ({y} {{moe.name = "y", moe.role = "gradient"}})
      attributes {{moe.weights = "plain"}} {{
    %o, %s = "moe.plan"(%i) {{experts = {experts} : i64, direct_max_tokens = 0 : i64}} : ({index}) -> ({plan})
    %l = tensor.concat dim(1) {left} : ({", ".join(lhs)}) -> {whole[0]}
    %w = tensor.concat dim(1) {right} : ({", ".join(weights)}) -> {whole[1]}
    %y = "moe.grouped_matmul_combine"(%l, %i, %o, %s, %w) ({{
      ^bb0(%a: f32):
       "moe.yield"(%a) : (f32) -> ()
    }}, {{
      ^bb0(%a: f32):
       "moe.yield"(%a) : (f32) -> ()
    }}) {{operandSegmentSizes = array<i32: 1, 1, 1, 1, 1>, gather = true, slots_per_token = {slots} : i64, transposed}}
      : ({whole[0]}, {index}, {plan}, {whole[1]}) -> {y}
    return %y : {y}
  }}
}}"""


compiled = cache(lambda *sizes: Artifact(module(*sizes), VARIANTS))

# Odd parts, a part of one element, parts whose border lies within a unit of weights, many panels; whole panels of f32,
# multiplied where they lie: several units of each part, more panels than are together.
SIZES = [(3, (5, 7), 17, 2), (4, (1, 33, 2), 40, 3), (2, (300, 251), 64, 1), (3, (16, 16), 300, 2)]
SIZES += [(2, (384, 768), 1056, 1)]


def run(artifact: Artifact, given: list[torch.Tensor], columns: int, variant: int, threads: int) -> torch.Tensor:
    tokens = len(given[0])
    y = torch.empty(tokens, columns)
    workspace = aligned(artifact.library.backward_workspace_bytes(variant, tokens, threads))
    artifact.library.backward(variant, threads, workspace, *given, y)
    return y


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_products_are_added_up(size: tuple[int, tuple[int, ...], int, int], dtype: str) -> None:
    experts, inner, columns, slots = size
    artifact = compiled(*size, dtype)
    for tokens in (0, 1, 9, 130):
        random = torch.Generator().manual_seed(tokens)
        index = torch.rand(tokens, experts, generator=random).topk(slots, -1).indices.int()
        index[torch.rand(tokens, slots, generator=random) < 0.3] = -1
        lhs = [torch.randn(tokens, n, generator=random).to(DTYPES[dtype]) for n in inner]
        weights = [torch.randn(experts, n, columns, generator=random).to(DTYPES[dtype]) for n in inner]
        want = np.zeros((tokens, columns))
        for a, w in zip(lhs, weights, strict=True):
            for slot in range(slots):
                here = index[:, slot].numpy() >= 0
                want[here] += np.einsum("tk,tkn->tn", exact(a)[here], exact(w)[exact(index)[here, slot]])
        for variant in range(len(VARIANTS)):
            found = run(artifact, [index, *lhs, *weights], columns, variant, 2)
            error = np.abs(exact(found) - want).max(initial=0) / max(np.abs(want).max(initial=0), 1e-30)
            assert error < 1e-5, (tokens, VARIANTS[variant].name)
            assert torch.equal(found, run(artifact, [index, *lhs, *weights], columns, variant, 1))
