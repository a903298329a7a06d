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
from moec.formats import FORMATS
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
    assert (codes.dtype, scales.dtype) == (torch.float8_e4m3fn if format == "fp8_e4m3" else torch.int8, kept)
    want_codes, want_scales = expected(weights, format, group, kept)
    np.testing.assert_array_equal(codes.double().numpy(), want_codes)
    np.testing.assert_array_equal(scales.double().numpy(), want_scales)


@pytest.mark.parametrize("scale", [None, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("group", [None, 1, 7, 21])
@pytest.mark.parametrize("dtype", list(DTYPES))
@pytest.mark.parametrize("format", list(FORMATS))
def test_agrees_with_the_oracle(format: str, dtype: torch.dtype, group: int | None, scale: torch.dtype | None) -> None:
    weights = torch.randn(3, 10, 21, generator=torch.Generator().manual_seed(1))
    weights[0, 0] = 0
    weights[1, 2, 3], weights[2, 4, 5] = torch.nan, torch.inf
    weights[1, 5] *= 1e-42
    weights[1, 6] = torch.arange(21) - 10.5
    check(weights.to(dtype), format, group, scale)


@given(st.lists(st.floats(width=32), min_size=12, max_size=12), st.sampled_from(list(FORMATS)))
@settings(max_examples=50, deadline=None)
def test_any_values(values: list[float], format: str) -> None:
    for group in (None, 3):
        check(torch.tensor(values).reshape(1, 2, 6), format, group, torch.float32)


@given(st.lists(st.floats(-448.0, 448.0, width=32), min_size=7, max_size=7))
@settings(max_examples=100, deadline=None)
def test_codes_of_fp8_are_those_that_torch_casts_to(values: list[float]) -> None:
    """Where the scale is 1: halves, subnormals, zeros of both signs."""
    weights = torch.tensor([448.0, *values]).reshape(1, 8)
    codes, scales = moec.quantize(weights, "fp8_e4m3")
    assert scales.tolist() == [1.0]
    assert torch.equal(codes.view(torch.uint8), weights.to(torch.float8_e4m3fn).view(torch.uint8))


def test_codes_of_fp8_are_rounded_to_even_and_clamped() -> None:
    """A scale in bf16 may be less than the largest magnitude over 448: what is beyond becomes 448, not NaN."""
    ties = [17.0, 19.0, -19.0, 2.0**-10, 3 * 2.0**-10, -(2.0**-11), 2.0**-6 - 2.0**-10, -0.0, 447.0]
    codes, _ = moec.quantize(torch.tensor([[448.0, *ties]]), "fp8_e4m3")
    assert codes.float().tolist() == [[448.0, 16.0, 20.0, -20.0, 0.0, 2.0**-8, 0.0, 2.0**-6, 0.0, 448.0]]
    assert codes[0, 6].view(torch.uint8) == 0x80
    assert codes[0, 8].view(torch.uint8) == 0x80
    largest = 448 * (1 + 2.0**-9)
    codes, scales = moec.quantize(torch.tensor([[largest, -largest]]), "fp8_e4m3", scale=torch.bfloat16)
    assert scales.tolist() == [1.0]
    assert codes.float().tolist() == [[448.0, -448.0]]
    codes, scales = moec.quantize(torch.tensor([[1.0, torch.nan], [torch.inf, 1.0], [0.0, 0.0]]), "fp8_e4m3")
    assert not codes.float().isnan().any()
    assert codes.float().tolist() == [[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]
    assert scales[0].isnan()
    assert scales[1:].tolist() == [torch.inf, 0.0]


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
        (
            lambda w: moec.quantize(w, "int5"),
            InputError,
            "no format 'int5'; there are int8, int4, ternary, fp8_e4m3",
        ),
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
