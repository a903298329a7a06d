"""What quantised operations compute: codes and scales in the f32 arithmetic that defines them, products exactly."""

import numpy as np
from torch_mlir import ir

from moec.dialect.formats import FORMATS
from moec.formats import Codes
from moec.oracle.scalars import round_to
from moec.oracle.scope import Array, Meaning, Scope

_E4M3_STEPS = -9
_E4M3_FRACTION = 3
"""Numbers of E4M3 are multiples of 2^-9, and have so many bits behind the first one."""


def _codes(values: Array, scale: Array, how: Codes) -> Array:
    """Codes of f32 `values` by f32 `scale` (broadcast): the rounded quotient, clamped; 0 where it is NaN.

    int64, or float64 where codes are floats.
    """
    quotient = np.nan_to_num(values.astype(np.float32) / scale.astype(np.float32), nan=0.0)
    clamped: Array = np.clip(quotient, how.lowest, how.highest).astype(np.float64)
    codes: Array = _e4m3(clamped) if how.floats else np.rint(clamped).astype(np.int64)
    return codes


def _e4m3(values: Array) -> Array:
    """Finite numbers rounded to the nearest of E4M3, ties to even."""
    exponent = np.frexp(values)[1] - 1 - _E4M3_FRACTION
    step = np.ldexp(1.0, np.maximum(exponent, _E4M3_STEPS))
    rounded: Array = np.rint(values / step) * step
    return rounded


def _largest(values: Array, over: int) -> Array:
    """f32 scale of each group along the last axis (kept): its largest magnitude over a whole number."""
    largest: Array = np.abs(values).max(-1, keepdims=True, initial=0.0).astype(np.float32) / np.float32(over)
    return largest


def quantize(weights: Array, name: str, groups: int, scale: ir.Type) -> tuple[Array, Array]:
    """(codes [E, N, K] as int64 or, of floats, float64; scales [E, N, G] as float64) of weights [E, N, K]."""
    how = FORMATS[name]
    grouped = weights.reshape(*weights.shape[:2], groups, -1)
    if how.divisor:
        scales = _largest(grouped, how.divisor)
    else:
        scales = (np.cumsum(np.abs(grouped), -1)[..., -1:] / grouped.shape[-1]).astype(np.float32)
    scales = round_to(scales.astype(np.float64), scale)
    codes = _codes(grouped, scales, how)
    return codes.reshape(weights.shape), scales[..., 0]


def dequantize(codes: Array, scales: Array) -> Array:
    grouped = codes.reshape(*scales.shape, -1) * scales[..., None]
    return grouped.reshape(codes.shape).astype(np.float64)


def quantize_rows(rows: Array) -> Array:
    """Rows along the last axis rounded to int8 with one scale each, as float64."""
    scale = _largest(rows, FORMATS["int8"].divisor).astype(np.float64)
    fake: Array = _codes(rows, scale, FORMATS["int8"]) * scale
    return fake


def _quantize(op: ir.Operation, inputs: list[Array], scope: Scope) -> list[Array]:
    name = ir.StringAttr(op.attributes["format"]).value
    scales = ir.RankedTensorType(op.results[1].type)
    return list(quantize(inputs[0], name, scales.get_dim_size(2), scales.element_type))


def _dequantize(op: ir.Operation, inputs: list[Array], scope: Scope) -> list[Array]:
    return [dequantize(*inputs)]


def _quantize_rows(op: ir.Operation, inputs: list[Array], scope: Scope) -> list[Array]:
    return [quantize_rows(inputs[0])]


MEANING: dict[str, Meaning] = {
    "moe.quantize": _quantize,
    "moe.dequantize": _dequantize,
    "moe.quantize_row": _quantize_rows,
    "moe.quantize_rows": _quantize_rows,
}
