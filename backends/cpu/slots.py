"""Small operations on the slots of tokens: moe.slot_values, moe.row_values, moe.count."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch_mlir import ir

from moec.backends.base import unsupported
from moec.backends.cpu.builder import Builder
from moec.backends.cpu.frame import Call, Frame, Phase
from moec.backends.cpu.values import Pointer
from moec.backends.cpu.waves import row_count


def slot_values(op: Any, frame: Frame) -> Sequence[Phase]:
    """One thread does it all: 16384 slots take some 20 us."""
    groups, slots, rows = _groups(op, frame), frame.storage(op.slots), frame.storage(op.rows)
    out = frame.buffer(op.out)

    def emit(call: Call) -> None:
        b = call.b
        with b.for_(0, call.tokens) as loop:
            _clear(b, call.row(out, loop.index), 4 * out.columns)
        with b.for_(0, row_count(call, groups)) as loop:
            slot = b.convert(call.row(slots, loop.index).load(b.i32), b.i64)
            place = call.row(out, slot // out.columns).at(slot % out.columns, 4)
            place.store(call.row(rows, loop.index).load(b.f32))

    return [Phase("slot_values", emit, work=2 * out.columns, serial=True)]


def row_values(op: Any, frame: Frame) -> Sequence[Phase]:
    groups, slots, values = _groups(op, frame), frame.storage(op.slots), frame.storage(op.values)
    out = frame.buffer(op.out, values.columns)

    def emit(call: Call) -> None:
        b = call.b
        with call.share(row_count(call, groups)) as row:
            slot = b.convert(call.row(slots, row).load(b.i32), b.i64)
            value = call.row(values, slot // values.columns).at(slot % values.columns, 4)
            call.row(out, row).store(value.load(b.f32))

    return [Phase("row_values", emit, work=2 * values.columns)]


def count(op: Any, frame: Frame) -> Sequence[Phase]:
    """Counts into the result, or not at all where the caller gives no tensor for it.

    The last thread does it, while the first one makes the plan of the same slots.
    """
    index, out = frame.storage(op.index), frame.buffer(op.out)
    experts = ir.RankedTensorType(op.out.type).get_dim_size(0)

    def emit(call: Call) -> None:
        b, counts = call.b, call.address(out)
        with b.if_(call.thread.equals(call.threads - 1) & ~b.is_null(counts)):
            _clear(b, counts, 4 * experts)
            with b.for_(0, call.tokens) as token:
                row = call.row(index, token.index)
                with b.for_(0, index.columns, unroll=True) as slot:
                    expert = row.at(slot.index, 4).load(b.i32)
                    with b.if_(expert.unsigned_below(experts)):
                        cell = counts.at(b.convert(expert, b.i64), 4)
                        cell.store(cell.load(b.i32) + 1)

    return [Phase("count", emit, work=2 * index.columns)]


def _groups(op: Any, frame: Frame) -> int:
    """The groups of the plan that made an operation's slots."""
    owner = op.slots.owner
    if isinstance(owner, ir.Block) or owner.operation.name != "moe.plan":
        raise unsupported("cpu", op, "its slots must be those of a moe.plan")
    return frame.groups[owner.operation.results[0]]


def _clear(b: Builder, to: Pointer, bytes_: int) -> None:
    b.intrinsic("llvm.memset", None, to, b.constant(b.i8, 0), b.index(bytes_), b.constant(b.i1, 0))
