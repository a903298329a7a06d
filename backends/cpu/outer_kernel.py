"""The microkernel of weight gradients: a tile of the result, summed over the steps of a strip and a panel.

Every sum is one chain of multiply-adds in ascending order of rows, and goes on from memory between chunks of rows: its
bits do not depend on how columns are cut into tiles or tiles are shared among threads.

A finished tile is rounded in registers and written once, past the caches where the result is larger than they are: its
lines are whole, so that nothing has to be read first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch_mlir import ir

from moec.backends.cpu.builder import Builder, Function
from moec.backends.cpu.frame import LINE
from moec.backends.cpu.outer_layout import VECTORS, Outer
from moec.backends.cpu.tiling import STILL_STEPS
from moec.backends.cpu.values import Pointer, Value, byte_width

SUMS, RESULT, STREAMED, HELD = range(4)
"""Where a tile goes: to the sums in memory; to the result; to the result past the caches; or, the left half of lines
that are then STREAMED with the right one, rounded to the sums' place."""

STREAM_BYTES = 16 * 1024 * 1024
"""A result of at least so many bytes is written past the caches."""


def kernel(b: Builder, shape: Outer, element: ir.Type, columns: int) -> Function:
    """`void outer(strip, panel, steps, sums, resume, result, mode)` for a tile of `columns` columns of a.

    Sums are [column of a][vector][lane] f32, read only if `resume` (i1) says so and written in mode SUMS.  The result
    has rows of `shape.columns` elements.  Defines the function when it is first asked for.
    """
    kind = "pairs" if shape.pairs else "alternating" if shape.alternating else "f32"
    name = f"outer_{kind}_{columns}_{shape.columns}_{element}"
    function = b.declare(name, [b.ptr, b.ptr, b.i64, b.ptr, b.i1, b.ptr, b.i64])
    if not function.operation.body.blocks:
        with b.define(function) as (strip, panel, steps, sums, resume, result, mode):
            total = _total(b, shape, columns, strip, panel, steps, sums, resume)
            _write(b, shape, element, total, sums, result, mode)
    return function


def _total(
    b: Builder, shape: Outer, columns: int, strip: Pointer, panel: Pointer, steps: Value, sums: Pointer, resume: Value
) -> list[Value]:
    """The sums of the tile, two vectors a column of a."""
    vector = b.vec(shape.lanes, b.f32)
    places = [sums + shape.vector_bytes * n for n in range(columns * VECTORS)]
    start = b.choose(
        resume,
        [vector] * len(places),
        lambda: [place.load(vector, align=shape.vector_bytes) for place in places],
        lambda: [b.splat(vector, 0.0) for _ in places],
    )
    at_once = STILL_STEPS if b.variant.short_steps else 1

    def loop_of(begin: Value | int, end: Value, at_once: int, carry: Sequence[Value]) -> list[Value]:
        with b.for_(begin, end, at_once, carry=carry) as loop:
            total = loop.values[: len(places)]
            left, right = (Pointer(value.raw) for value in loop.values[len(places) :])
            for _ in range(at_once):
                vectors = [
                    (right + n * shape.vector_bytes).load(vector, align=shape.vector_bytes) for n in range(VECTORS)
                ]
                for column in range(columns):
                    element = b.splat(vector, (left + 4 * column).load(b.f32))
                    for n, other in enumerate(vectors):
                        at = column * VECTORS + n
                        total[at] = _multiply_add(b, shape, element, other, total[at])
                left, right = left + shape.strip_step_bytes, right + shape.panel_step_bytes
            loop.carry(*total, left, right)
        return loop.results

    whole = steps // at_once * at_once
    total = loop_of(0, whole, at_once, [*start, strip, panel])
    if at_once > 1:
        total = loop_of(whole, steps, 1, total)
    return total[: len(places)]


def _multiply_add(b: Builder, shape: Outer, left: Value, right: Value, total: Value) -> Value:
    return b.dot_bf16(left, right, total) if shape.pairs else b.fma(left, right, total)


def _write(
    b: Builder, shape: Outer, element: ir.Type, total: list[Value], sums: Pointer, result: Pointer, mode: Value
) -> None:
    half = shape.panel_columns * byte_width(element)

    def rows() -> list[list[Value]]:
        return [rounded(b, shape, element, total[n : n + VECTORS]) for n in range(0, len(total), VECTORS)]

    def finished(store: Callable[[Pointer, Value], None], held: bool = False) -> None:
        row = result
        for number, values in enumerate(rows()):
            at = row
            if held:
                store(row + -half, (sums + (number * half - shape.tile_bytes)).load(values[0].type, align=half))
            for value in values:
                store(at, value)
                at = at + value.lanes * byte_width(value.element)
            row = row + shape.columns * byte_width(element)

    with b.if_(mode.equals(SUMS)):
        for n, value in enumerate(total):
            (sums + shape.vector_bytes * n).store(value, align=shape.vector_bytes)
    with b.if_(mode.equals(RESULT)):
        finished(lambda at, value: at.store(value))
    if streams(shape, element):
        with b.if_(mode.equals(STREAMED)):
            finished(lambda at, value: _stream(b, at, value), held=half < LINE)
        if half < LINE:
            with b.if_(mode.equals(HELD)):
                for number, (value,) in enumerate(rows()):
                    (sums + number * half).store(value, align=half)


def _stream(b: Builder, at: Pointer, value: Value) -> None:
    if value.element == b.bf16 and b.variant.has_dot_bf16:
        # LLVM would forget what it is told about a store of bf16.
        b.assembly("vmovntps $0, ($1)", "v,r,~{memory}", None, value.bitcast(b.vec(value.lanes // 2, b.f32)), at)
    else:
        at.store_streaming(value)


def streams(shape: Outer, element: ir.Type) -> bool:
    """Whether a result is so large that it leaves the caches, and a tile's part of a row is whole lines, or half of
    one, and the whole of a vector."""
    width = byte_width(element)
    part = shape.panel_columns * width
    whole = shape.columns * width % LINE == 0 and (part % LINE == 0 or (2 * part == LINE and shape.alternating))
    return whole and shape.experts * shape.rows * shape.columns * width >= STREAM_BYTES


def rounded(b: Builder, shape: Outer, element: ir.Type, values: list[Value]) -> list[Value]:
    """The vectors of a row of the tile in the result's type; bf16 from pairs or alternating as one vector."""
    if shape.alternating:
        # A NaN of numbers that were bf16 has zeros behind those of bf16, so that rounding leaves it what it is.
        even, odd = (bits + ((bits >> 16) & 1) + 0x7FFF for bits in (v.bitcast(b.like(v, b.i32)) for v in values))
        return [(even >> 16) | (odd & -(1 << 16))]
    if shape.pairs and element == b.bf16:
        # What vdpbf16ps adds up is never denormal, so that this instruction, which flushes, rounds it like all others.
        joined = b.intrinsic(
            "llvm.x86.avx512bf16.cvtne2ps2bf16.512", b.vec(2 * shape.lanes, b.bf16), values[1], values[0]
        )
        return [joined]
    return [b.convert(value, element) for value in values]
