"""`moec.quantize` against the oracle, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_mlir import ir

import moec
from moec.dialect import context
from moec.errors import DeviceError, DtypeError, InputError, MoecError, ShapeError
from moec.oracle.quantised import quantize

DTYPES = {torch.float32: "f32", torch.bfloat16: "bf16"}


def expected(weights: torch.Tensor, format: str, group: int | None, scale: torch.dtype) -> tuple[Any, Any]:
    groups = weights.shape[-1] // group if group else 1
    with context(), ir.Location.unknown(), np.errstate(all="ignore"):
        element = {"f32": ir.F32Type, "bf16": ir.BF16Type}[DTYPES[scale]].get()
        codes, scales = quantize(weights.double().numpy(), format, groups, element)
    return codes, scales if group else scales[..., 0]


def check(weights: torch.Tensor, format: str, group: int | None, scale: torch.dtype | None) -> None:
    codes, scales = moec.quantize(weights, format, group=group, scale=scale)
    kept = scale or (torch.bfloat16 if group else torch.float32)
    assert (codes.dtype, scales.dtype) == (torch.int8, kept)
    want_codes, want_scales = expected(weights, format, group, kept)
    np.testing.assert_array_equal(codes.numpy(), want_codes)
    np.testing.assert_array_equal(scales.double().numpy(), want_scales)


@pytest.mark.parametrize("scale", [None, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("group", [None, 1, 7, 21])
@pytest.mark.parametrize("dtype", list(DTYPES))
@pytest.mark.parametrize("format", ["int8", "int4", "ternary"])
def test_agrees_with_the_oracle(format: str, dtype: torch.dtype, group: int | None, scale: torch.dtype | None) -> None:
    weights = torch.randn(3, 10, 21, generator=torch.Generator().manual_seed(1))
    weights[0, 0] = 0
    weights[1, 2, 3], weights[2, 4, 5] = torch.nan, torch.inf
    weights[1, 5] *= 1e-42
    weights[1, 6] = torch.arange(21) - 10.5
    check(weights.to(dtype), format, group, scale)


@given(st.lists(st.floats(width=32), min_size=12, max_size=12), st.sampled_from(["int8", "int4", "ternary"]))
@settings(max_examples=50, deadline=None)
def test_any_values(values: list[float], format: str) -> None:
    for group in (None, 3):
        check(torch.tensor(values).reshape(1, 2, 6), format, group, torch.float32)


def test_matrices_and_deeper_stacks() -> None:
    weights = torch.randn(2, 3, 4, 6)
    codes, scales = moec.quantize(weights.transpose(2, 3), "int8")
    assert codes.shape == (2, 3, 6, 4)
    assert scales.shape == (2, 3, 6)
    one, of_it = moec.quantize(weights[1, 2].t(), "int8")
    assert torch.equal(one, codes[1, 2])
    assert torch.equal(of_it, scales[1, 2])


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda w: moec.quantize(w, "int5"), InputError, "there is no format 'int5'; there are int8, int4, ternary"),
        (lambda w: moec.quantize(w, "int4", group=4), InputError, "groups of 4 do not divide 6 inputs"),
        (lambda w: moec.quantize(w, "int4", group=0), InputError, "groups of 0"),
        (lambda w: moec.quantize(w.int(), "int4"), DtypeError, r"not torch\.int32"),
        (lambda w: moec.quantize(w.tolist(), "int4"), DtypeError, "not list"),
        (lambda w: moec.quantize(w, "int4", scale=torch.float16), DtypeError, "scales are"),
        (lambda w: moec.quantize(w[0], "int4"), ShapeError, r"\[6\]"),
        (lambda w: moec.quantize(w[:0], "int4"), ShapeError, r"\[0, 6\]"),
        (lambda w: moec.quantize(w.to("meta"), "int4"), DeviceError, "meta"),
    ],
)
def test_what_cannot_be_quantised(call: Any, error: type[MoecError], says: str) -> None:
    with pytest.raises(error, match=says):
        call(torch.randn(4, 6))
