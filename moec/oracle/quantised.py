"""What quantised operations compute: codes and scales in the f32 arithmetic that defines them, products exactly."""

import numpy as np
from torch_mlir import ir

from moec.dialect.formats import FORMATS
from moec.oracle.scalars import round_to
from moec.oracle.scope import Array, Meaning, Scope


def _codes(values: Array, scale: Array, lowest: int, highest: int) -> Array:
    """Codes of f32 `values` by f32 `scale` (broadcast): the rounded quotient, clamped; 0 where it is NaN."""
    quotient = np.rint(values.astype(np.float32) / scale.astype(np.float32))
    codes: Array = np.clip(np.nan_to_num(quotient, nan=0.0), lowest, highest).astype(np.int64)
    return codes


def _largest(values: Array, over: int) -> Array:
    """f32 scale of each group along the last axis (kept): its largest magnitude over a whole number."""
    largest: Array = np.abs(values).max(-1, keepdims=True, initial=0.0).astype(np.float32) / np.float32(over)
    return largest


def quantize(weights: Array, name: str, groups: int, scale: ir.Type) -> tuple[Array, Array]:
    """(codes [E, N, K] as int64, scales [E, N, G] as float64) of weights [E, N, K]."""
    how = FORMATS[name]
    grouped = weights.reshape(*weights.shape[:2], groups, -1)
    if how.divisor:
        scales = _largest(grouped, how.divisor)
    else:
        scales = (np.cumsum(np.abs(grouped), -1)[..., -1:] / grouped.shape[-1]).astype(np.float32)
    scales = round_to(scales.astype(np.float64), scale)
    codes = _codes(grouped, scales, how.lowest, how.highest)
    return codes.reshape(weights.shape), scales[..., 0]


def dequantize(codes: Array, scales: Array) -> Array:
    grouped = codes.reshape(*scales.shape, -1) * scales[..., None]
    return grouped.reshape(codes.shape).astype(np.float64)


def quantize_rows(rows: Array) -> Array:
    """Rows along the last axis rounded to int8 with one scale each, as float64."""
    scale = _largest(rows, FORMATS["int8"].divisor).astype(np.float64)
    fake: Array = _codes(rows, scale, -127, 127) * scale
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
