"""Regions of scalar operations, evaluated on vectors and on scalars."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from torch_mlir import ir

from moec.backends.base import Unsupported
from moec.backends.cpu import elementwise
from moec.dialect import context
from tests.backends.cpu import native

REGION = """
func.func @f(%x: tensor<?x4xf32>) -> tensor<?x4xf32> {
  %outer = arith.constant 1.5 : f32
  %w = arith.constant dense<0.0> : tensor<1x4x4xf32>
  %r = "moe.matmul"(%x, %w) ({
  ^bb0(%a: f32):
    BODY
    "moe.yield"(%y) : (f32) -> ()
  }) {operandSegmentSizes = array<i32: 1, 1>} : (tensor<?x4xf32>, tensor<1x4x4xf32>) -> tensor<?x4xf32>
  return %r : tensor<?x4xf32>
}"""

CASES = {
    "silu": (
        """%one = arith.constant 1.0 : f32
        %n = arith.negf %a : f32
        %e = math.exp %n : f32
        %d = arith.addf %e, %one : f32
        %y = arith.divf %a, %d : f32""",
        lambda a: a / (1 + np.exp(-a)),
    ),
    "a constant from outside": ("%y = arith.mulf %a, %outer : f32", lambda a: a * 1.5),
    "clamp": (
        """%low = arith.constant -1.0 : f32
        %m = arith.maximumf %a, %low : f32
        %y = arith.minimumf %m, %outer : f32""",
        lambda a: np.minimum(np.maximum(a, -1.0), 1.5),
    ),
    "a choice": (
        """%c = arith.cmpf ogt, %a, %outer : f32
        %n = arith.negf %a : f32
        %y = arith.select %c, %n, %a : f32""",
        lambda a: np.where(a > 1.5, -a, a),
    ),
    "bfloat16 and back": (
        """%t = arith.truncf %a : f32 to bf16
        %y = arith.extf %t : bf16 to f32""",
        lambda a: _bf16(a),
    ),
}


def _bf16(values: np.ndarray) -> np.ndarray:
    bits = values.astype(np.float32).view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32)
    return np.where(np.isnan(values), np.nan, rounded.view(np.float32).astype(np.float64))


def region(module: ir.Module) -> ir.Region:
    return module.body.operations[0].regions[0].blocks[0].operations[2].operation.regions[0]


@pytest.mark.parametrize("variant", native.runnable(), ids=lambda v: v.name)
def test_regions(variant):
    rng = np.random.default_rng(0)
    special = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1.5, 200.0, -200.0]
    x = np.concatenate([special, rng.normal(size=56) * 3]).astype(np.float32)

    def write(b):
        for number, (body, _) in enumerate(CASES.values()):
            module = ir.Module.parse(REGION.replace("BODY", body))
            for lanes in (1, variant.lanes, 3):
                type_ = b.f32 if lanes == 1 else b.vec(lanes, b.f32)
                f = b.declare(f"__tvm_ffi_{number}_{lanes}", [b.ptr, b.ptr, b.i64], linkage="external")
                with b.define(f) as (out, source, n), b.for_(0, n, lanes) as loop:
                    value = source.at(loop.index, 4).load(type_)
                    (made,) = elementwise.evaluate(b, region(module), [value], lanes)
                    out.at(loop.index, 4).store(made)

    with np.errstate(all="ignore"), native.library(write, variant) as library:
        for number, (name, (_, reference)) in enumerate(CASES.items()):
            want = reference(x.astype(np.float64))
            for lanes in (1, variant.lanes, 3):
                count = len(x) // lanes * lanes
                out = np.empty_like(x)
                getattr(library, f"__tvm_ffi_{number}_{lanes}")(
                    native.address(out), native.address(x), ctypes.c_int64(count)
                )
                np.testing.assert_allclose(
                    out[:count],
                    want[:count].astype(np.float32),
                    rtol=4e-7,
                    atol=1e-44,
                    err_msg=f"{name}, {lanes} lanes",
                )


def test_an_unknown_operation_is_refused():
    variant = native.runnable()[0]

    def write(b):
        module = ir.Module.parse(REGION.replace("BODY", "%y = math.cos %a : f32"))
        function = b.declare("__tvm_ffi_f", [b.ptr], linkage="external")
        with b.define(function) as (p,):
            elementwise.evaluate(b, region(module), [p.load(b.f32)], 1)

    with context(), pytest.raises(Unsupported, match=r"math\.cos"), native.library(write, variant):
        pass
