"""Quantised operations of the `moe` dialect: weights as small numbers with scales, rows rounded to int8.

A *format* says how a group of K/G weights along the inner dimension becomes codes and a scale:

| format     | codes                       | scale         |
|------------|-----------------------------|---------------|
| `int8`     | -127..127                   | max abs / 127 |
| `int4`     | -8..7                       | max abs / 7   |
| `ternary`  | -1, 0, 1                    | mean abs      |
| `fp8_e4m3` | floats of E4M3, to +-448    | max abs / 448 |

All formats are symmetric: a weight is code * scale.  The scale is computed in f32 (the mean's sum in f64, in ascending
order) and rounded to the element type of the scales.  A code is the f32 quotient weight / scale rounded to the nearest
number of the format, ties to even, then clamped; a quotient that is NaN gives code 0.  So a group of zeros has scale 0
and codes 0, and one that holds a NaN or an infinity has a scale that is not finite.  G = 1 is one group a channel.

Codes are i8, those of `fp8_e4m3` f8E4M3FN (arXiv:2209.05433): subnormals and both zeros, no infinities, and a NaN of
each sign.  Quantising makes no NaN; one that is given is multiplied as it is, so that what it touches becomes NaN.

A row of activations is quantised alike to int8, over its whole length, with an f32 scale.
"""

from typing import Any

from torch_mlir import ir
from torch_mlir.dialects.ext import Operand, Pure, Result

from moec.dialect import quantised_checks as checks
from moec.dialect.moe import Moe


class QuantizeOp(Moe.Operation, name="quantize", traits=[Pure]):
    """Weights tensor<ExNxKx(f32|bf16|f16)> to codes tensor<ExNxKx(i8|f8E4M3FN)> and scales tensor<ExNxGx(f32|bf16)>."""

    weights: Operand[Any]
    format: ir.StringAttr
    codes: Result[Any]
    scales: Result[Any]

    def verify_invariants(self) -> bool:
        return checks.quantize(self)


class DequantizeOp(Moe.Operation, name="dequantize", traits=[Pure]):
    """code * scale, exactly: codes tensor<ExNxKx(i8|f8E4M3FN)>, scales tensor<ExNxGx(f32|bf16)>, tensor<ExNxKxf32>.

    The product is not rounded; f32 is the type in which a matmul of it accumulates.
    """

    codes: Operand[Any]
    scales: Operand[Any]
    format: ir.StringAttr
    weights: Result[Any]

    def verify_invariants(self) -> bool:
        return checks.dequantize(self)


class QuantizeRowOp(Moe.Operation, name="quantize_row", traits=[Pure]):
    """In a row program: the row rounded to int8, tensor<Kx(f32|bf16|f16)> to tensor<Kxf32>.

    The result is code * scale, not rounded again.
    """

    row: Operand[Any]
    out: Result[Any]

    def verify_invariants(self) -> bool:
        return checks.quantize_row(self)


class QuantizeRowsOp(Moe.Operation, name="quantize_rows", traits=[Pure]):
    """At kernel level: every row rounded to int8 by itself, tensor<?xKx(f32|bf16|f16)> to tensor<?xKxf32>.

    A backend keeps codes and scales of the rows, not the f32 that they stand for.
    """

    rows: Operand[Any]
    out: Result[Any]

    def verify_invariants(self) -> bool:
        return checks.quantize_rows(self)
