"""Matmuls on the simulator against float64: awkward sizes, and routings that break schedules."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from torch_mlir import ir

from moec.backends.base import Unsupported
from moec.backends.cuda.arch import ARCHITECTURES, Arch
from moec.backends.cuda.kernel import Kernel, Scope
from moec.backends.cuda.matmul import emit
from tests.backends.cuda.products import SWIGLU, Emitted, Product, error, inputs, sums

TOLERANCE = {"bf16": 2**-8, "f16": 2**-11, "f32": 1e-5}

CALLS = [(0, "even"), (1, "even"), (7, "dropped"), (150, "one"), (290, "even"), (130, "few")]

UP = Product(inner=136, columns=72, experts=5, per_token=2, products=2, body=SWIGLU)
WEIGHTED = """%e = "moe.element"(%w) {kind = "slot"} : (tensor<?x3xf32>) -> f32
      %c = "moe.element"(%b) {kind = "column"} : (tensor<4x100xf32>) -> f32
      %p = arith.addf %a0, %c : f32
      %v = arith.mulf %p, %e : f32"""
DOWN = Product(inner=64, columns=100, experts=4, per_token=3, gather=False, body=WEIGHTED)


def number(which: int | None, op: ir.Operation, scope: Scope, arch: Arch) -> tuple[Kernel, ...]:
    """All kernels of an operation, or one of them for calls of any size."""
    made = emit.matmul(op, scope, arch)
    return made if which is None else (replace(made[which], tokens=(0, None)),)


@cache
def emitted(product: Product, arch: str, which: int | None) -> Emitted:
    return Emitted(product, ARCHITECTURES[arch], lambda op, scope, a: number(which, op, scope, a))


def swiglu(product: Product, given: dict[str, torch.Tensor]) -> np.ndarray:
    g, u = sums(product, given)
    return g / (1 + np.exp(-g)) * u


def weighted(product: Product, given: dict[str, torch.Tensor]) -> np.ndarray:
    (y,) = sums(product, given)
    expert = np.repeat(np.arange(4), np.diff(given["o"].numpy()))
    return (y + given["b"].double().numpy()[expert]) * given["w"].double().numpy().ravel()[given["s"].numpy()][:, None]


FEW, MANY = 0, 1
KERNELS = [("sm_80", FEW), ("sm_80", MANY), ("sm_90a", MANY)]


@pytest.mark.parametrize(("arch", "which"), KERNELS)
def test_gathered_rows_and_two_weights(arch: str, which: int) -> None:
    for tokens, routing in CALLS:
        given = inputs(UP, tokens, routing, seed=tokens)
        found = emitted(UP, arch, which).run(given, seed=tokens)
        assert error(found, swiglu(UP, given)) < TOLERANCE["bf16"], (tokens, routing)


@pytest.mark.parametrize(("arch", "which"), KERNELS)
def test_rows_in_order_and_what_an_epilogue_reads(arch: str, which: int) -> None:
    product = replace(DOWN, type="f16")
    for tokens, routing in [(60, "one"), (130, "even")]:
        given = inputs(product, tokens, routing)
        found = emitted(product, arch, which).run(given)
        assert error(found, weighted(product, given)) < TOLERANCE["f16"]


PLAIN = "%v = arith.addf %a0, %zero : f32"


@pytest.mark.parametrize(
    ("lhs", "rhs", "inner", "columns", "transposed"),
    [
        ("bf16", "f32", 136, 66, False),
        ("bf16", "f32", 100, 33, False),
        ("f16", "f32", 136, 66, False),
        ("f32", "f32", 17, 70, True),
        ("f32", "f32", 1, 1, False),
    ],
)
def test_dense_products_in_f32(lhs: str, rhs: str, inner: int, columns: int, transposed: bool) -> None:
    product = Product(inner, columns, None, type=rhs, lhs_type=lhs, out="f32", transposed=transposed, body=PLAIN)
    for tokens in (0, 1, 6, 64, 65, 150):
        given = inputs(product, tokens)
        assert error(emitted(product, "sm_80", None).run(given), sums(product, given)[0]) < 1e-6


@pytest.mark.parametrize(("arch", "which"), KERNELS)
def test_transposed_weights(arch: str, which: int) -> None:
    product = Product(inner=72, columns=104, experts=3, per_token=2, transposed=True, body=PLAIN)
    for tokens, routing in [(100, "even"), (33, "one")]:
        given = inputs(product, tokens, routing)
        found = emitted(product, arch, which).run(given)
        assert error(found, sums(product, given)[0]) < TOLERANCE["bf16"]


def test_calls_of_every_size_find_a_kernel() -> None:
    product = Product(inner=64, columns=40, experts=3, per_token=1, out="f32", body=PLAIN)
    for tokens in (0, 1, 48, 49, 200):
        given = inputs(product, tokens)
        assert error(emitted(product, "sm_90a", None).run(given), sums(product, given)[0]) < TOLERANCE["f32"]


def test_rows_and_weights_of_different_16_bits_are_refused() -> None:
    with pytest.raises(Unsupported, match="rows of f16 and weights of bf16"):
        emitted(replace(UP, lhs_type="f16"), "sm_80", None)


def test_rows_that_are_not_whole_units_of_16_bytes_are_refused() -> None:
    with pytest.raises(Unsupported, match="rows of 33 elements: no multiple of 16 bytes"):
        emitted(replace(UP, inner=33), "sm_80", None)
