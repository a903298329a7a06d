"""The microkernel: a block of rows times the steps of one panel, accumulated in registers.

Every accumulator is one chain of multiply-adds over the inner dimension in ascending order, whatever the number of rows
in the block, and continues from memory between units.  So an element's bits depend on its row and column alone: not on
the batch, on other rows, on the number of threads, or on where blocks begin.

Rows lie in row-major order at a stride known when the code is made: row i of a block is a constant displacement, and
the broadcast of an element is the memory operand of a load.  Nothing is transposed.

While it multiplies, a kernel prefetches two streams into the second-level cache: a share of the weights that come
next, and rows that come next.  At a few rows an expert, streaming the weights takes as long as multiplying by them; the
time is then that of the longer one instead of the sum, because the requests are spread over the whole multiplication.
"""

from __future__ import annotations

from moec.backends.cpu import code_kernel
from moec.backends.cpu.builder import Builder, Function
from moec.backends.cpu.codes import CodePanels
from moec.backends.cpu.frame import LINE
from moec.backends.cpu.kernel_arguments import KernelArguments
from moec.backends.cpu.layout import Arithmetic, Panels
from moec.backends.cpu.values import Pointer, Value

PACE = 1 << 16
"""The pace of streams that move on at every step."""


def kernel(
    b: Builder, layout: Panels, row_stride: int, rows: int, paced: bool = False, weights_row: int | None = None
) -> Function:
    """`void kernel(rows, weights, steps, accumulators, resume, weights stream, its stride, rows stream, its stride,
    pace, run)`.

    Streams move on by their strides at every step.  Those of a `paced` kernel are runs of 2**run lines, which begin a
    stride apart; after n steps they are at line n * pace / PACE, rounded down.
    Weights are in the order of `Panels`, or, with `weights_row`, of f32, lie as tensor<ExKxN> in rows of so many bytes.
    Accumulators are [row][vector of the panel][lane] f32 or i32 in memory, read only if `resume` (i1) says so.  Defines
    the function when it is first asked for.
    """
    name = f"kernel_{layout.kernel}_{rows}x{layout.vectors}_{row_stride}{'_paced' if paced else ''}"
    name = f"{name}_in_rows_of_{weights_row}" if weights_row else name
    arguments = [b.ptr, b.ptr, b.i64, b.ptr, b.i1, b.ptr, b.i64, b.ptr, b.i64, b.i64, b.i64]
    function = b.declare(name, arguments)
    if not function.operation.body.blocks:
        with b.define(function) as taken:
            given = KernelArguments(*taken)
            if isinstance(layout, CodePanels):
                code_kernel.body(b, layout, row_stride, rows, given)  # its streams move on at every step
            else:
                _body(b, layout, row_stride, rows, paced, weights_row, given)
    return function


def _body(
    b: Builder, layout: Panels, row_stride: int, rows: int, paced: bool, weights_row: int | None, given: KernelArguments
) -> None:
    vector = b.vec(layout.lanes, b.f32)
    width = 4 * layout.lanes
    places = [given.accumulators + width * n for n in range(rows * layout.vectors)]
    start = given.first_sums(b, vector, places, width)
    align = 4 if weights_row else layout.vector_bytes
    in_run = (b.index(1) << given.run) - 1
    ahead = [b.index(0)] if paced else [given.weights_ahead, given.rows_ahead]
    with b.for_(0, given.steps, carry=[*start, given.rows, given.weights, *ahead], unroll=False) as loop:
        sums = loop.values[: len(places)]
        a, weights = (Pointer(value.raw) for value in loop.values[len(places) : len(places) + 2])
        moving = loop.values[len(places) + 2 :]
        if paced:
            lines = moving[0] >> (PACE.bit_length() - 1)
            run, line = lines >> given.run, (lines & in_run) * LINE
            streams = [given.weights_ahead + run * given.weights_stride + line]
            streams.append(given.rows_ahead + run * given.rows_stride + line)
            moved = [moving[0] + given.pace]
        else:
            streams = [Pointer(stream.raw) for stream in moving]
            moved = [streams[0] + given.weights_stride, streams[1] + given.rows_stride]
        columns = [_weights(b, layout, weights + n * layout.vector_bytes, align) for n in range(layout.vectors)]
        for row in range(rows):
            element = b.splat(vector, (a + row * row_stride).load(b.f32))
            for n, column in enumerate(columns):
                at = row * layout.vectors + n
                sums[at] = _multiply_add(b, layout, element, column, sums[at])
        for ahead_ in range(1 if paced else layout.prefetched_lines):
            (streams[0] + ahead_ * LINE).prefetch()
        streams[1].prefetch()
        loop.carry(*sums, a + 4, weights + (weights_row or layout.step_bytes), *moved)
    for place, value in zip(places, loop.results, strict=False):
        place.store(value, align=width)


def _weights(b: Builder, layout: Panels, at: Pointer, align: int) -> Value:
    """One vector of a step's weights as the multiplication takes it."""
    widened = {Arithmetic.WIDENED: b.bf16, Arithmetic.HALVES: b.f16}.get(layout.arithmetic)
    if widened is not None:
        return b.convert(at.load(b.vec(layout.lanes, widened), align=align), b.f32)
    return at.load(b.vec(layout.lanes, b.f32), align=align)


def _multiply_add(b: Builder, layout: Panels, element: Value, column: Value, total: Value) -> Value:
    if layout.arithmetic is Arithmetic.PAIRS:
        return b.dot_bf16(element, column, total)
    return b.fma(element, column, total)
