"""moe.take_rows and moe.collect: rows of pairs of tokens and experts, on their way to experts and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from moec.backends.cpu import elementwise
from moec.backends.cpu.epilogue import Place, load, read, real_lanes, store
from moec.backends.cpu.frame import ADDRESS, SLACK, Call, Frame, Phase, Size, copy_bytes
from moec.backends.cpu.product import pick
from moec.backends.cpu.values import Value, byte_width


def take_rows(op: Any, frame: Frame) -> Sequence[Phase]:
    """Rows are read where they lie: the phase lists their addresses.  They are copied only where they are a result.

    A number beyond the last row is an error, and zeros stand for that row.
    """
    x, source = frame.storage(op.x), frame.storage(op.source)
    width = x.columns * byte_width(x.element)
    code = frame.error("RangeError", "the number of a row to take is not below T")
    view = frame.view(op.out, x)
    zeros = frame.workspace(Size(fixed=width + SLACK))

    def emit(call: Call) -> None:
        b, nothing = call.b, call.pointer(zeros)
        size = b.index(width + SLACK)
        # Each thread, as it may copy from there at once: all write the same.
        b.intrinsic("llvm.memset", None, nothing, b.constant(b.i8, 0), size, b.constant(b.i1, 0))
        with call.share(call.tokens) as row:
            number = b.convert(call.row(source, row).load(b.i32), b.i64)
            with b.if_(number >= call.tokens):
                call.fail(code)
            there = number.unsigned_below(call.tokens)
            taken = pick(b, there, call.row(x, b.select(there, number, 0)), nothing)
            if view is None:
                copy_bytes(b, call.row(frame.storage(op.out), row), taken, width)
            else:
                call.address(view).at(row, ADDRESS).store(taken)

    return [Phase("take_rows", emit, work=2)]


def collect(op: Any, frame: Frame) -> Sequence[Phase]:
    """One thread adds up a token's rows, in the order of its slots and from 0, as `moe.grouped_matmul_combine` does."""
    rows, places = frame.storage(op.rows), frame.storage(op.places)
    slots, columns = places.columns, rows.columns // places.columns
    flat = replace(rows, columns=columns, stride=4 * columns)
    out = frame.buffer(op.out, zeros_behind=True)
    code = frame.error("RangeError", f"the place of a row is not below T*{slots}")

    def emit(call: Call) -> None:
        b, lanes = call.b, frame.variant.lanes
        vector, count = b.vec(lanes, b.f32), call.tokens * slots

        def place_of(token: Value, slot: Value) -> Value:
            return b.convert(call.row(places, token).at(slot, 4).load(b.i32), b.i64)

        def sum_of(token: Value, column: Value, real: Value | None) -> Value:
            with b.for_(0, slots, carry=[b.constant(vector, 0.0)]) as loop:
                number = place_of(token, loop.index)
                there = number.unsigned_below(count)
                address = call.row(flat, b.select(there, number, 0)).at(column, 4)
                total = loop.value + load(call, flat, address, vector, real)
                loop.carry(b.select(there, total, loop.value))
            return loop.results[0]

        with call.share(call.tokens) as token:
            with b.for_(0, slots) as loop, b.if_(place_of(token, loop.index) >= count):
                call.fail(code)
            with b.for_(0, columns, lanes) as loop:
                column = loop.index
                real = real_lanes(b, frame, columns, column)
                place = Place(token, b.index(0), token, token, column, real)

                def leaf(element: Any, place: Place = place) -> Value:
                    return read(call, element, place, lanes)

                (value,) = elementwise.evaluate(b, op.finish, [sum_of(token, column, real)], lanes, leaf)
                store(call, out, place, token, value)

    return [Phase("collect", emit, work=2 * rows.columns)]
