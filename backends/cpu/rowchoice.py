"""The choosing operations of a row program: moe.top_k, moe.top_p, moe.take, moe.chosen, moe.put."""

from __future__ import annotations

import math
from typing import Any

from torch_mlir import ir

from moec.backends.cpu.builder import Builder
from moec.backends.cpu.rows import Row, Rows, shape_of
from moec.backends.cpu.values import Value

LEAST = -(2**31)  # below every key: of lanes that hold no value, and of values that are taken


def ascending_key(b: Builder, value: Value) -> Value:
    """i32 that order as the floats do, NaN above all; -0 equals 0.  None is LEAST."""
    bits = (value + 0.0).bitcast(b.like(value, b.i32))
    negative = bits.arithmetic_shift(31) & 0x7FFFFFFF
    return b.select(value.is_nan(), bits.same(2**31 - 1), bits ^ negative)


class Chooser:
    """Picks the largest values of one list of `count` floats, one after the other."""

    def __init__(self, rows: Rows, count: int) -> None:
        self.rows = rows
        self.count = count
        self.keys = rows.new((count,), rows.b.i32)

    def fill(self, values: Row, begin: Value | int) -> None:
        """Starts anew with the list that begins at an element of `values`."""
        b, rows = self.rows.b, self.rows
        lanes = rows.lanes
        whole = self.count - self.count % lanes

        def write(index: Value | int, width: int) -> None:
            at = index + begin if isinstance(index, Value) else b.index(begin) + index
            key = ascending_key(b, values.load(b, at, width))
            if isinstance(index, int) and index >= whole:
                key = b.select(b.first_lanes(width, self.count - whole), key, LEAST)
            self.keys.store(b, index, key)

        if whole:
            with b.for_(0, whole, lanes) as loop:
                write(loop.index, lanes)
        if whole < self.count:
            write(whole, lanes)

    def largest(self) -> Value:
        """The position (i32) of the largest value left, the lowest such; it is taken away."""
        b, lanes = self.rows.b, self.rows.lanes
        vector = b.vec(lanes, b.i32)
        start = [b.splat(vector, LEAST), b.splat(vector, 0), b.lanes_constant(vector, range(lanes))]
        with b.for_(0, self.count, lanes, carry=start) as loop:
            best, place, here = loop.values
            key = self.keys.load(b, loop.index, lanes)
            better = key > best
            loop.carry(b.select(better, key, best), b.select(better, here, place), here + lanes)
        best, place, _ = loop.results
        top = b.reduce(best, b.maximum)
        found = b.reduce(b.select(best.equals(top), place, 2**31 - 1), b.minimum)
        self.keys.store(b, b.convert(found, b.i64), b.constant(b.i32, LEAST))
        return found


def top_k(rows: Rows, op: Any, values: Row) -> Row:
    b = rows.b
    out = rows.of_type(op.results[0].type)
    count, k = values.shape[-1], out.shape[-1]
    chooser = Chooser(rows, count)
    with b.for_(0, math.prod(values.shape[:-1])) as line:
        chooser.fill(values, line.index * count)
        with b.for_(0, k) as loop:
            out.store(b, line.index * k + loop.index, chooser.largest())
    return out


def top_p(rows: Rows, op: Any, values: Row) -> Row:
    """The mass before a position is summed up in f32, in the order of choice."""
    b = rows.b
    out = rows.of_type(op.results[0].type)
    mass = ir.FloatAttr(op.mass).value
    chooser = Chooser(rows, values.count)
    chooser.fill(values, 0)
    with b.for_(0, out.count, carry=[b.constant(b.f32, 0.0)]) as loop:
        before = loop.value
        place = chooser.largest()
        wanted = loop.index.equals(0) | (before < mass)
        out.store(b, loop.index, b.select(wanted, place, -1))
        loop.carry(before + values.load(b, b.convert(place, b.i64), 1))
    return out


def take(rows: Rows, op: Any, values: Row, index: Row, range_error: int) -> Row:
    """A position beyond the last is an error and gives 0."""
    b = rows.b
    out = rows.of_type(op.results[0].type)
    count, k = values.shape[-1], index.shape[-1]
    with b.for_(0, math.prod(index.shape[:-1])) as line, b.for_(0, k) as loop:
        at = line.index * k + loop.index
        place = index.load(b, at, 1)
        inside = place.unsigned_below(count)
        safe = b.convert(b.select(inside, place, 0), b.i64)
        value = values.load(b, line.index * count + safe, 1)
        out.store(b, at, b.select(inside, value, 0))
        with b.if_(place >= count):
            rows.call.fail(range_error)
    return out


def chosen(rows: Rows, op: Any, index: Row) -> Row:
    b = rows.b
    out = rows.of_type(op.results[0].type)
    count, k = out.shape[-1], index.shape[-1]
    nothing = Row(shape_of(op.results[0].type), b.i1, None, b.constant(b.i1, 0))
    rows.copy(nothing, out)
    with b.for_(0, math.prod(index.shape[:-1])) as line, b.for_(0, k) as loop:
        place = index.load(b, line.index * k + loop.index, 1)
        with b.if_(place.unsigned_below(count)):
            out.store(b, line.index * count + b.convert(place, b.i64), b.constant(b.i1, 1))
    return out


def put(rows: Rows, op: Any, values: Row, index: Row) -> Row:
    """A position outside of the result is left out."""
    b = rows.b
    out = rows.of_type(op.results[0].type)
    count, k = out.shape[-1], index.shape[-1]
    rows.copy(Row(out.shape, b.f32, None, b.constant(b.f32, 0.0)), out)
    with b.for_(0, math.prod(index.shape[:-1])) as line, b.for_(0, k) as loop:
        at = line.index * k + loop.index
        place = index.load(b, at, 1)
        with b.if_(place.unsigned_below(count)):
            to = line.index * count + b.convert(place, b.i64)
            out.store(b, to, out.load(b, to, 1) + values.load(b, at, 1))
    return out
