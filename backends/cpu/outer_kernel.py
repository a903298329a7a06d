"""The microkernel of weight gradients: a tile of the result, summed over the steps of a strip and a panel.

Every sum is one chain of multiply-adds in ascending order of rows, and goes on from memory between chunks of rows: its
bits do not depend on how columns are cut into tiles or tiles are shared among threads.

A finished tile is rounded in registers and written once, past the caches where the result is larger than they are: its
lines are whole, so that nothing has to be read first.
"""

from __future__ import annotations

from collections.abc import Callable

from torch_mlir import ir

from moec.backends.cpu.builder import Builder, Function
from moec.backends.cpu.frame import LINE
from moec.backends.cpu.outer_layout import VECTORS, Outer
from moec.backends.cpu.values import Pointer, Value, byte_width

SUMS, RESULT, STREAMED = range(3)
"""Where a tile goes: to the sums in memory; to the result; to the result past the caches."""

STREAM_BYTES = 16 * 1024 * 1024
"""A result of at least so many bytes is written past the caches."""


def kernel(b: Builder, shape: Outer, element: ir.Type, columns: int) -> Function:
    """`void outer(strip, panel, steps, sums, resume, result, mode)` for a tile of `columns` columns of a.

    Sums are [column of a][vector][lane] f32, read only if `resume` (i1) says so and written in mode SUMS.  The result
    has rows of `shape.columns` elements.  Defines the function when it is first asked for.
    """
    name = f"outer_{'pairs' if shape.pairs else 'f32'}_{columns}_{shape.columns}_{element}"
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
    with b.for_(0, steps, carry=[*start, strip, panel]) as loop:
        total = loop.values[: len(places)]
        left, right = (Pointer(value.raw) for value in loop.values[len(places) :])
        vectors = [(right + n * shape.vector_bytes).load(vector, align=shape.vector_bytes) for n in range(VECTORS)]
        for column in range(columns):
            element = b.splat(vector, (left + 4 * column).load(b.f32))
            for n, other in enumerate(vectors):
                at = column * VECTORS + n
                total[at] = _multiply_add(b, shape, element, other, total[at])
        loop.carry(*total, left + shape.strip_step_bytes, right + shape.panel_step_bytes)
    return loop.results[: len(places)]


def _multiply_add(b: Builder, shape: Outer, left: Value, right: Value, total: Value) -> Value:
    return b.dot_bf16(left, right, total) if shape.pairs else b.fma(left, right, total)


def _write(
    b: Builder, shape: Outer, element: ir.Type, total: list[Value], sums: Pointer, result: Pointer, mode: Value
) -> None:
    def finished(store: Callable[[Pointer, Value], None]) -> None:
        row = result
        for n in range(0, len(total), VECTORS):
            at = row
            for value in _rounded(b, shape, element, total[n : n + VECTORS]):
                store(at, value)
                at = at + value.lanes * byte_width(element)
            row = row + shape.columns * byte_width(element)

    with b.if_(mode.equals(SUMS)):
        for n, value in enumerate(total):
            (sums + shape.vector_bytes * n).store(value, align=shape.vector_bytes)
    with b.if_(mode.equals(RESULT)):
        finished(lambda at, value: at.store(value))
    if streams(shape, element):
        with b.if_(mode.equals(STREAMED)):
            finished(lambda at, value: _stream(b, at, value))


def _stream(b: Builder, at: Pointer, value: Value) -> None:
    if value.element == b.bf16 and b.variant.has_dot_bf16:
        # LLVM would forget what it is told about a store of bf16.
        b.assembly("vmovntps $0, ($1)", "v,r,~{memory}", None, value.bitcast(b.vec(value.lanes // 2, b.f32)), at)
    else:
        at.store_streaming(value)


def streams(shape: Outer, element: ir.Type) -> bool:
    """Whether a result is so large that it leaves the caches, and a tile's part of a row is whole lines."""
    width = byte_width(element)
    whole = shape.columns * width % LINE == 0 and shape.panel_columns * width % LINE == 0
    return whole and shape.experts * shape.rows * shape.columns * width >= STREAM_BYTES


def _rounded(b: Builder, shape: Outer, element: ir.Type, values: list[Value]) -> list[Value]:
    """The vectors of a row of the tile in the result's type; bf16 from pairs as one vector."""
    if shape.pairs and element == b.bf16:
        # What vdpbf16ps adds up is never denormal, so that this instruction, which flushes, rounds it like all others.
        joined = b.intrinsic(
            "llvm.x86.avx512bf16.cvtne2ps2bf16.512", b.vec(2 * shape.lanes, b.bf16), values[1], values[0]
        )
        return [joined]
    return [b.convert(value, element) for value in values]
