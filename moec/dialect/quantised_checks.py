"""Verifiers of the quantised operations."""

from collections.abc import Sequence
from typing import Any

from torch_mlir import ir

from moec.dialect.checks import batched, expect, require, shape, sound, tensor
from moec.dialect.formats import FORMATS

FLOATS = ("f32", "bf16", "f16")
SCALES = ("f32", "bf16")


def _floats(value: ir.Value, what: str) -> tuple[int | None, ...]:
    type_ = tensor(value, what)
    require(str(type_.element_type) in FLOATS, f"{what} must hold {', '.join(FLOATS)}, not {type_.element_type}")
    return shape(type_)


def _stored(op: Any, dims: Sequence[int | None]) -> None:
    """`op.codes` and `op.scales` must be those of weights of these dimensions."""
    name = ir.StringAttr(op.format).value
    require(name in FORMATS, f"format must be one of {', '.join(FORMATS)}, not {name!r}")
    require(len(dims) == 3 and None not in dims, "weights must be tensor<ExNxK>")
    expect(op.codes, "codes", dims, FORMATS[name].element)
    scales = tensor(op.scales, "scales")
    groups = shape(scales)[-1] if scales.rank == 3 else None
    require(groups is not None, f"scales must be tensor<ExNxG>, not {scales}")
    expect(op.scales, "scales", (*dims[:2], groups))
    require(str(scales.element_type) in SCALES, f"scales must hold {' or '.join(SCALES)}, not {scales.element_type}")
    inner = dims[2] or 0
    require(bool(groups) and inner % (groups or 1) == 0, f"{groups} groups do not divide {inner} inner elements")


@sound
def quantize(op: Any) -> None:
    _stored(op, _floats(op.weights, "weights"))


@sound
def dequantize(op: Any) -> None:
    _stored(op, shape(tensor(op.weights, "the result")))
    expect(op.weights, "the result", shape(tensor(op.weights, "the result")), "f32")


@sound
def quantize_row(op: Any) -> None:
    dims = _floats(op.row, "the row")
    require(len(dims) == 1, f"the row must have rank 1, not {op.row.type}")
    expect(op.out, "the result", dims, "f32")


@sound
def quantize_rows(op: Any) -> None:
    batched(op.rows, "the rows", 2)
    expect(op.out, "the result", _floats(op.rows, "the rows"), "f32")
