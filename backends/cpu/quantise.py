"""Floats to codes with one scale, in the f32 arithmetic that defines them (docs/ir.md, "Quantised weights")."""

from __future__ import annotations

from dataclasses import dataclass

from torch_mlir import ir

from moec.backends.cpu import e4m3
from moec.backends.cpu.builder import Builder
from moec.backends.cpu.values import Pointer, Value, byte_width, constant
from moec.formats import Codes

_ROUND = 1.5 * 2.0**23
"""Adding it to a float of smaller magnitude than 2^22 leaves the nearest integer, ties to even, in the low bits."""
_ROUND_BITS = 0x4B400000


@dataclass(frozen=True)
class Run:
    """`count` elements behind each other."""

    source: Pointer
    element: ir.Type
    count: int


def largest(b: Builder, run: Run) -> Value:
    """f32: the largest magnitude of a run; NaN if one is.  The bits of magnitudes are ordered as magnitudes are."""
    width, lanes = byte_width(run.element), b.variant.lanes
    whole = run.count // lanes * lanes

    def magnitude(index: Value, many: int) -> Value:
        type_ = run.element if many == 1 else b.vec(many, run.element)
        bits = b.convert(run.source.at(index, width).load(type_), b.f32)
        return bits.bitcast(b.like(bits, b.i32)) & 0x7FFFFFFF

    with b.for_(0, whole, lanes, carry=[b.splat(b.vec(lanes, b.i32), 0)]) as loop:
        loop.carry(b.maximum(loop.value, magnitude(loop.index, lanes)))
    with b.for_(whole, run.count, carry=[b.reduce(loop.result, b.maximum)]) as rest:
        rest.carry(b.maximum(rest.value, magnitude(rest.index, 1)))
    return rest.result.bitcast(b.f32)


def mean(b: Builder, run: Run) -> Value:
    """f32: the mean magnitude of a run, summed in f64 in ascending order."""
    with b.for_(0, run.count, carry=[b.constant(b.f64, 0.0)]) as loop:
        value = b.convert(run.source.at(loop.index, byte_width(run.element)).load(run.element), b.f32)
        magnitude = (value.bitcast(b.i32) & 0x7FFFFFFF).bitcast(b.f32)
        loop.carry(loop.value + b.convert(magnitude, b.f64))
    return b.convert(loop.result / float(run.count), b.f32)


def code(b: Builder, value: Value, scale: Value, how: Codes) -> Value:
    """i32: f32 value / scale rounded to the nearest number of a format, ties to even, clamped; 0 where it is NaN.

    Of a format of floats, their bits.
    """
    quotient = value / scale
    clamped = b.minimum(b.maximum(quotient, float(how.lowest)), float(how.highest))
    clamped = b.select(quotient.is_nan(), constant(quotient.type, 0.0), clamped)
    if how.floats:
        return e4m3.rounded(b, clamped)
    return (clamped + _ROUND).bitcast(b.like(quotient, b.i32)) - _ROUND_BITS


def codes(b: Builder, run: Run, scale: Value, how: Codes, to: Pointer, as_: ir.Type) -> Value:
    """Writes the codes of a run as integers of type `as_`; i32: their sum, where they are whole numbers."""
    lanes = b.variant.lanes
    width, out, whole = byte_width(run.element), byte_width(as_), run.count // lanes * lanes

    def one(index: Value, many: int) -> Value:
        type_ = run.element if many == 1 else b.vec(many, run.element)
        value = b.convert(run.source.at(index, width).load(type_), b.f32)
        found = code(b, value, b.splat(value.type, scale), how)
        to.at(index, out).store(b.convert(found, as_))
        return found

    with b.for_(0, whole, lanes, carry=[b.splat(b.vec(lanes, b.i32), 0)]) as loop:
        loop.carry(loop.value + one(loop.index, lanes))
    with b.for_(whole, run.count, carry=[b.sum(loop.result)]) as rest:
        rest.carry(rest.value + one(rest.index, 1))
    return rest.result
