"""Copies rows of the operands of a weight gradient into strips and panels, as its microkernel takes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch_mlir import ir

from moec.backends.cpu.builder import Builder
from moec.backends.cpu.frame import Call, Storage, copy_bytes
from moec.backends.cpu.outer_layout import VECTORS, Outer
from moec.backends.cpu.values import Pointer, Value, byte_width


@dataclass(frozen=True)
class Factor:
    """An operand: rows in the order of the plan, or, with `slots`, in token order and found through them."""

    storage: Storage
    slots: Storage | None
    slots_per_token: int

    def vector(self, b: Builder, lanes: int) -> ir.Type:
        """How elements are loaded: bf16 and f16 as bits, because where they are not native, LLVM widens them for a
        shuffle."""
        return b.vec(lanes, b.f32 if self.storage.element == b.f32 else b.i16)

    def row(self, call: Call, row: Value) -> Pointer:
        if self.slots is None:
            return call.row(self.storage, row)
        slot = call.b.convert(call.row(self.slots, row).load(call.b.i32), call.b.i64)
        return call.row(self.storage, slot // self.slots_per_token)


def copy_strip(
    call: Call, shape: Outer, factor: Factor, first: Value, count: Value, column: Value, to: Pointer
) -> None:
    """Columns from `column` on, as many as a strip has room for and there are, of rows [first, first + count)."""
    b = call.b
    width, lanes = byte_width(factor.storage.element), shape.lanes
    real = b.minimum(shape.rows - column, shape.strip_columns)
    whole = real // lanes * lanes

    def copy(step: Value, rows: list[Pointer]) -> None:
        target = to.at(step, shape.strip_step_bytes)

        def vector(n: Value, load: Callable[[Pointer], Value]) -> None:
            target.at(n, 4).store(_step_vector(b, shape, factor, [load(row.at(n, width)) for row in rows], len(rows)))

        with b.for_(0, whole, lanes) as loop:
            vector(loop.index, lambda at: at.load(factor.vector(b, lanes)))
        with b.if_(whole < real):
            vector(whole, lambda at: _part(b, factor, at, lanes, real - whole))

    _each_step(call, shape, factor, first, count, column, copy)


def copy_panels(
    call: Call, shape: Outer, factor: Factor, first: Value, count: Value, begin: Value, end: Value, to: Pointer,
    stride: Value,
) -> None:  # fmt: skip
    """Panels [begin, end), `stride` bytes apart, of rows [first, first + count)."""
    b = call.b
    width, lanes = byte_width(factor.storage.element), shape.panel_columns
    ragged = shape.columns % lanes != 0
    full = b.minimum(end, shape.columns // lanes) if ragged else end

    def copy(step: Value, rows: list[Pointer]) -> None:
        target = to.at(step, shape.panel_step_bytes)

        def panel(n: Value, load: Callable[[Pointer], Value]) -> None:
            loaded = [load(row.at(n - begin, lanes * width)) for row in rows]
            if shape.alternating:
                words = loaded[0].bitcast(b.vec(shape.lanes, b.i32))
                vectors = [words << 16, words & -(1 << 16)]
            else:
                parts = [range(number * shape.lanes, (number + 1) * shape.lanes) for number in range(VECTORS)]
                vectors = [
                    _step_vector(b, shape, factor, [b.shuffle(value, value, part) for value in loaded], len(rows))
                    for part in parts
                ]
            for number, vector in enumerate(vectors):
                place = target + (n - begin) * stride + number * shape.vector_bytes
                place.store(vector, align=shape.vector_bytes)

        with b.for_(begin, full) as loop:
            panel(loop.index, lambda at: at.load(factor.vector(b, lanes)))
        if ragged:
            with b.if_(full < end):
                panel(full, lambda at: _part(b, factor, at, lanes, b.index(shape.columns % lanes)))

    _each_step(call, shape, factor, first, count, begin * lanes, copy)


def _each_step(
    call: Call,
    shape: Outer,
    factor: Factor,
    first: Value,
    count: Value,
    column: Value,
    copy: Callable[[Value, list[Pointer]], None],
) -> None:
    """`copy` for every step, with the addresses of its rows at `column`; of a last row alone, with one."""
    width, per_step = byte_width(factor.storage.element), shape.rows_per_step
    b = call.b

    def rows(step: Value, many: int) -> list[Pointer]:
        return [factor.row(call, first + step * per_step + n).at(column, width) for n in range(many)]

    whole = count // per_step
    with b.for_(0, whole) as loop:
        copy(loop.index, rows(loop.index, per_step))
    if per_step > 1:
        with b.if_((count % per_step).differs(0)):
            copy(whole, rows(whole, 1))


def _step_vector(b: Builder, shape: Outer, factor: Factor, rows: list[Value], real: int) -> Value:
    """`lanes` elements of the rows of a step as one vector of 4 bytes a lane; a missing second row is zeros."""
    if not shape.pairs:
        return b.convert(rows[0].bitcast(b.vec(shape.lanes, factor.storage.element)), b.f32)
    first = rows[0]
    second = rows[1] if real > 1 else b.splat(first.type, 0)
    lanes = [half * shape.lanes + lane for lane in range(shape.lanes) for half in range(2)]
    return b.shuffle(first, second, lanes)


def _part(b: Builder, factor: Factor, at: Pointer, lanes: int, real: Value) -> Value:
    """A vector of which only the first `real` elements may be read; the others are arbitrary."""
    element = factor.storage.element
    spill = b.scratch(lanes * byte_width(element))
    copy_bytes(b, spill, at, real * byte_width(element))
    return spill.load(factor.vector(b, lanes))
