"""moe.capacity: empties the slots that come too late for their expert."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch_mlir import ir

from moec.backends.base import unsupported
from moec.backends.cpu.builder import Builder
from moec.backends.cpu.frame import Call, Frame, Phase, Size, Storage
from moec.backends.cpu.values import Pointer, Value

_DIGIT = 8  # bits of a radix sort's digit
_BUCKETS = 1 << _DIGIT


def capacity(op: Any, frame: Frame) -> Sequence[Phase]:
    """Walks the slots in the order of `op.order` and keeps the first of every expert up to the limit.

    Serial: whether a slot is kept depends on all slots before it.
    """
    experts = ir.IntegerAttr(op.experts).value
    index, weight = frame.storage(op.index), frame.storage(op.weight)
    kept = frame.buffer(op.kept)
    used = frame.workspace(Size(fixed=4 * experts))
    code = frame.error("RangeError", f"the number of an expert is not below {experts}")
    order = ir.StringAttr(op.order).value
    walk = _walk(op, frame, order, weight, index.columns)
    per_token = index.columns

    def emit(call: Call) -> None:
        b = call.b
        counts = call.pointer(used)
        numbers, out = call.address(index), call.address(kept)
        b.intrinsic("llvm.memset", None, counts, b.constant(b.i8, 0), b.index(4 * experts), b.constant(b.i1, 0))
        limit = _limit(b, op, call.tokens * per_token)
        empty = b.constant(b.i32, -1)

        def visit(token: Value, slot: Value) -> None:
            expert = (numbers.at(token, index.stride) + slot * 4).load(b.i32)
            target = out.at(token, kept.stride) + slot * 4
            target.store(empty)
            with b.if_(expert.unsigned_below(experts)):
                cell = counts.at(b.convert(expert, b.i64), 4)
                count = cell.load(b.i32)
                cell.store(count + 1)
                target.store(b.select(b.convert(count, b.i64) < limit, expert, empty))
            with b.if_(expert >= experts):
                call.fail(code)

        walk(call, visit)

    return [Phase("capacity", emit, work=32 * per_token, serial=True)]


def _limit(b: Builder, op: Any, slots: Value) -> Value:
    """max(minimum, ceil(factor * T * K / experts)) in f64, as i64."""
    share = b.convert(slots, b.f64) * ir.FloatAttr(op.factor).value / float(ir.IntegerAttr(op.experts).value)
    whole = b.convert(share, b.i64)
    above = b.convert(b.convert(whole, b.f64) < share, b.i64, signed=False)
    return b.maximum(whole + above, ir.IntegerAttr(op.minimum).value)


Visit = Callable[[Value, Value], None]
Walk = Callable[[Call, Visit], None]


def _walk(op: Any, frame: Frame, order: str, weight: Storage, per_token: int) -> Walk:
    """What visits every (token, slot) in an order."""
    if order == "token":
        return lambda call, visit: _by_token(call, per_token, visit)
    if order == "choice":
        return lambda call, visit: _by_choice(call, per_token, visit)
    if order != "score":
        raise unsupported("cpu", op, f"order {order!r}")
    entry = Size(fixed=64, per_token=8 * per_token)
    arrays = frame.workspace(entry), frame.workspace(entry)
    return lambda call, visit: _by_score(call, weight, per_token, arrays, visit)


def _by_token(call: Call, per_token: int, visit: Visit) -> None:
    with call.b.for_(0, call.tokens) as token, call.b.for_(0, per_token) as slot:
        visit(token.index, slot.index)


def _by_choice(call: Call, per_token: int, visit: Visit) -> None:
    with call.b.for_(0, per_token) as slot, call.b.for_(0, call.tokens) as token:
        visit(token.index, slot.index)


def _by_score(call: Call, weight: Storage, per_token: int, arrays: tuple[int, int], visit: Visit) -> None:
    """A stable radix sort of (key, flat slot) pairs, whose keys ascend as weights descend."""
    b = call.b
    count = call.tokens * per_token
    source, target = call.pointer(arrays[0]), call.pointer(arrays[1])
    weights = call.address(weight)
    with b.for_(0, call.tokens) as token, b.for_(0, per_token) as slot:
        value = (weights.at(token.index, weight.stride) + slot.index * 4).load(b.f32)
        flat = token.index * per_token + slot.index
        pair = source.at(flat, 8)
        pair.store(descending_key(b, value))
        (pair + 4).store(b.convert(flat, b.i32))
    buckets = b.scratch(4 * _BUCKETS)
    for shift in range(0, 32, _DIGIT):
        _sort_digit(b, source, target, count, shift, buckets)
        source, target = target, source
    with b.for_(0, count) as loop:
        flat = b.convert((source.at(loop.index, 8) + 4).load(b.i32), b.i64)
        visit(flat // per_token, flat % per_token)


def descending_key(b: Builder, value: Value) -> Value:
    """An i32 whose unsigned order is that of the floats, largest first, NaN before all; -0 equals 0."""
    bits = (value + 0.0).bitcast(b.like(value, b.i32))
    ascending = bits ^ (bits.arithmetic_shift(31) | -(2**31))
    return b.select(value.is_nan(), bits.same(0), ~ascending)


def _sort_digit(b: Builder, source: Pointer, target: Pointer, count: Value, shift: int, buckets: Pointer) -> None:
    one = b.constant(b.i32, 1)
    b.intrinsic("llvm.memset", None, buckets, b.constant(b.i8, 0), b.index(4 * _BUCKETS), b.constant(b.i1, 0))

    def cell_of(pair: Pointer) -> Pointer:
        digit = (pair.load(b.i32) >> shift) & (_BUCKETS - 1)
        return buckets.at(b.convert(digit, b.i64), 4)

    with b.for_(0, count) as loop:
        cell = cell_of(source.at(loop.index, 8))
        cell.store(cell.load(b.i32) + one)
    with b.for_(0, _BUCKETS, carry=[b.constant(b.i32, 0)]) as loop:
        cell = buckets.at(loop.index, 4)
        here = cell.load(b.i32)
        cell.store(loop.value)
        loop.carry(loop.value + here)
    with b.for_(0, count) as loop:
        pair = source.at(loop.index, 8)
        cell = cell_of(pair)
        place = cell.load(b.i32)
        target.at(b.convert(place, b.i64), 8).store(pair.load(b.i64))
        cell.store(place + one)
