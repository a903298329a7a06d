"""moe.group_sum and moe.dense_group_sum: threads share pairs of an expert and some columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch_mlir import ir

from moec.backends.cpu.builder import Builder
from moec.backends.cpu.frame import Call, Frame, Phase, Storage, copy_bytes
from moec.backends.cpu.values import Pointer, Value, byte_width

CHUNK = 256
"""Columns that are summed together: their sums stay in the first-level cache."""

Bounds = Callable[[Call, Value], tuple[Value, Value]]
RowOf = Callable[[Call, Value], tuple[Pointer, Value | None]]


def group_sum(op: Any, frame: Frame) -> Sequence[Phase]:
    """Phases of `moe.group_sum`."""
    a, slots, offsets = (frame.storage(value) for value in (op.a, op.slots, op.offsets))
    factors = [frame.storage(value) for value in op.factor]
    gather, per_token = ir.IntegerAttr(op.gather).value, ir.IntegerAttr(op.slots_per_token).value

    def bounds(call: Call, expert: Value) -> tuple[Value, Value]:
        b, ends = call.b, call.address(offsets)
        first, end = (b.convert(ends.at(expert + n, 4).load(b.i32), b.i64) for n in range(2))
        return first, end

    def row_of(call: Call, row: Value) -> tuple[Pointer, Value | None]:
        b = call.b
        factor = call.row(factors[0], row).load(b.f32) if factors else None
        if not gather:
            return call.row(a, row), factor
        slot = b.convert(call.row(slots, row).load(b.i32), b.i64)
        return call.row(a, slot // per_token), factor

    return [_phase(op, frame, a, bounds, row_of, per_token)]


def dense_group_sum(op: Any, frame: Frame) -> Sequence[Phase]:
    """Phases of `moe.dense_group_sum`."""
    a = frame.storage(op.a)
    many = frame.rows_per_token.get(op.a, 1)

    def bounds(call: Call, _: Value) -> tuple[Value, Value]:
        return call.b.index(0), call.tokens * many

    return [_phase(op, frame, a, bounds, lambda call, row: (call.row(a, row), None), many)]


def _phase(op: Any, frame: Frame, a: Storage, bounds: Bounds, row_of: RowOf, many: int) -> Phase:
    out = frame.buffer(op.out)
    experts = ir.RankedTensorType(op.out.type).get_dim_size(0)
    chunks = -(-a.columns // CHUNK)

    def emit(call: Call) -> None:
        b = call.b
        sums, part = b.scratch(4 * CHUNK), b.scratch(4 * CHUNK)
        with call.share(experts * chunks) as item:
            expert, column = item // chunks, item % chunks * CHUNK
            real = b.minimum(b.index(a.columns) - column, CHUNK)
            _clear(b, sums)
            first, end = bounds(call, expert)
            with b.for_(first, end) as loop:
                row, factor = row_of(call, loop.index)
                # A copy, because behind a row of the caller's nothing may be read.
                width = byte_width(a.element)
                copy_bytes(b, part, row.at(column, width), real * width)
                _add(call, a.element, part, sums, real, factor)
            _round(call, out.element, sums, part, real)
            width = byte_width(out.element)
            copy_bytes(b, call.row(out, expert).at(column, width), part, real * width)

    return Phase(op.operation.name.removeprefix("moe."), emit, work=2 * many * a.columns)


def _clear(b: Builder, sums: Pointer) -> None:
    b.intrinsic("llvm.memset", None, sums, b.constant(b.i8, 0), b.index(4 * CHUNK), b.constant(b.i1, 0))


def _add(call: Call, element: ir.Type, part: Pointer, sums: Pointer, real: Value, factor: Value | None) -> None:
    b, lanes = call.b, call.frame.variant.lanes
    with b.for_(0, real, lanes) as loop:
        value = b.convert(part.at(loop.index, byte_width(element)).load(b.vec(lanes, element)), b.f32)
        place = sums.at(loop.index, 4)
        place.store(place.load(value.type) + (value if factor is None else value * factor))


def _round(call: Call, element: ir.Type, sums: Pointer, to: Pointer, real: Value) -> None:
    b, lanes = call.b, call.frame.variant.lanes
    with b.for_(0, real, lanes) as loop:
        total = sums.at(loop.index, 4).load(b.vec(lanes, b.f32))
        to.at(loop.index, byte_width(element)).store(b.convert(total, element))
