"""The microkernel: a block of rows times the steps of one panel, accumulated in registers.

Every accumulator is one chain of multiply-adds over the inner dimension in ascending order, whatever the number of rows
in the block, and continues from memory between units.  So an element's bits depend on its row and column alone: not on
the batch, on other rows, on the number of threads, or on where blocks begin.

Rows lie in row-major order at a stride known when the code is made: row i of a block is a constant displacement, and
the broadcast of an element is the memory operand of a load.  Nothing is transposed.

While it multiplies, a block prefetches two streams into the second-level cache: its share of the weights that come
next, and rows that come next.  At a few rows an expert, streaming the weights takes as long as multiplying by them; the
time is then that of the longer one instead of the sum, because the requests are spread over the whole multiplication.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from moec.backends.cpu import tiling
from moec.backends.cpu.builder import Builder, Function
from moec.backends.cpu.frame import LINE
from moec.backends.cpu.layout import Arithmetic, Panels
from moec.backends.cpu.values import Pointer, Value


@dataclass(frozen=True)
class Streams:
    """What a block prefetches at each step: `lines(layout)` lines at `weights`, then one at `rows`; both advance."""

    weights: Pointer
    weights_stride: Value
    rows: Pointer
    rows_stride: Value


def weight_lines(layout: Panels) -> int:
    """Lines of the weights stream that a step prefetches: with that of the rows stream, at least those of a step."""
    return max(1, -(-layout.step_bytes // LINE) - 1)


def kernel(b: Builder, layout: Panels, row_stride: int, rows: int) -> Function:
    """`void kernel(rows, weights, steps, accumulators, resume, weights stream, its stride, rows stream, its stride)`.

    Accumulators are [row][vector of the panel][lane] f32 in memory, read only if `resume` (i1) says so.  Defines the
    function when it is first asked for.
    """
    name = f"kernel_{layout.arithmetic.value}_{rows}x{layout.vectors}_{row_stride}"
    arguments = [b.ptr, b.ptr, b.i64, b.ptr, b.i1, b.ptr, b.i64, b.ptr, b.i64]
    function = b.declare(name, arguments)
    if not function.operation.body.blocks:
        with b.define(function) as given:
            _body(b, layout, row_stride, rows, *given)
    return function


def _body(
    b: Builder,
    layout: Panels,
    row_stride: int,
    rows: int,
    a: Pointer,
    weights: Pointer,
    steps: Value,
    accumulators: Pointer,
    resume: Value,
    next_weights: Pointer,
    weights_stride: Value,
    next_rows: Pointer,
    rows_stride: Value,
) -> None:
    vector = b.vec(layout.lanes, b.f32)
    width = 4 * layout.lanes
    places = [accumulators + width * n for n in range(rows * layout.vectors)]
    start = b.choose(
        resume,
        [vector] * len(places),
        lambda: [place.load(vector, align=width) for place in places],
        lambda: [b.splat(vector, 0.0) for _ in places],
    )
    carried = [*start, a, weights, next_weights, next_rows]
    with b.for_(0, steps, carry=carried, unroll=False) as loop:
        *sums, a, weights, next_weights, next_rows = loop.values
        columns = [_weights(b, layout, weights + n * layout.vector_bytes) for n in range(layout.vectors)]
        for row in range(rows):
            element = b.splat(vector, (a + row * row_stride).load(b.f32))
            for n, column in enumerate(columns):
                at = row * layout.vectors + n
                sums[at] = _multiply_add(b, layout, element, column, sums[at])
        for line in range(weight_lines(layout)):
            (next_weights + line * LINE).prefetch(locality=2)
        next_rows.prefetch(locality=2)
        loop.carry(
            *sums, a + 4, weights + layout.step_bytes, next_weights + weights_stride, next_rows + rows_stride
        )
    for place, value in zip(places, loop.results, strict=False):
        place.store(value, align=width)


def _weights(b: Builder, layout: Panels, at: Pointer) -> Value:
    """One vector of a step's weights as the multiplication takes it."""
    if layout.arithmetic is Arithmetic.WIDENED:
        return b.convert(at.load(b.vec(layout.lanes, b.bf16), align=layout.vector_bytes), b.f32)
    return at.load(b.vec(layout.lanes, b.f32), align=layout.vector_bytes)


def _multiply_add(b: Builder, layout: Panels, element: Value, column: Value, total: Value) -> Value:
    if layout.arithmetic is not Arithmetic.PAIRS:
        return b.fma(element, column, total)
    pairs = b.vec(2 * layout.lanes, b.bf16)
    name = "llvm.x86.avx512bf16.dpbf16ps.512"
    return b.intrinsic(name, total.type, total, element.bitcast(pairs), column.bitcast(pairs))


@dataclass(frozen=True)
class Rows:
    """Where the rows of a panel's product are, and what to prefetch meanwhile."""

    first: Pointer
    stride: int
    count: Value
    follow: Value | None = None
    """i1: prefetch the rows behind each block, those after the last among them."""


def panel_product(
    b: Builder,
    layout: Panels,
    rows: Rows,
    weights: Pointer,
    next_weights: Pointer,
    scratch: Pointer,
    before: Callable[[Value, Value], None],
    after: Callable[[Value, Value, Pointer], None],
) -> None:
    """All rows times one panel, in blocks of about equal size; `next_weights` are those to prefetch behind the panel.

    A block's rows are [first, first + count); `before(first, count)` is emitted where its last unit begins,
    `after(first, count, accumulators)` where the sums are complete.  `scratch` has `scratch_bytes`.
    """
    most = tiling.most_rows(b.variant, layout)
    unit = tiling.unit_steps(layout)
    units = -(-layout.steps // unit)
    row_bytes = 4 * layout.lanes * layout.vectors
    blocks = (rows.count + (most - 1)) // most
    size, larger = rows.count // blocks, rows.count % blocks
    alone = blocks.equals(1)
    stride = b.select(alone, b.index(layout.step_bytes), (blocks + (layout.step_bytes - 1)) // blocks)
    with b.for_(0, units) as part:
        begin = part.index * unit
        steps = b.minimum(b.index(layout.steps) - begin, unit)
        here = weights.at(begin, layout.step_bytes)
        last = part.index.equals(units - 1)
        follow = b.select(last, next_weights, here.at(steps, layout.step_bytes))
        share = steps * layout.step_bytes // blocks
        with b.for_(0, blocks, carry=[b.index(0)]) as block:
            first = block.value
            count = size + b.convert(block.index < larger, b.i64, signed=False)
            accumulators = scratch.at(first, row_bytes) if units > 1 else scratch
            with b.if_(last):
                before(first, count)
            a = rows.first.at(first, rows.stride).at(begin, 4)
            streams = _streams(b, layout, rows, alone, follow.at(block.index, 1) if False else follow, scratch)
            del streams
            loop_first = first + count
            block.carry(loop_first)
