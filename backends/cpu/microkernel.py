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

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from moec.backends.cpu import code_kernel, tiling
from moec.backends.cpu.builder import Builder, Function
from moec.backends.cpu.codes import CodePanels
from moec.backends.cpu.frame import LINE
from moec.backends.cpu.kernel_arguments import KernelArguments
from moec.backends.cpu.later import digest
from moec.backends.cpu.layout import Arithmetic, Panels
from moec.backends.cpu.values import Pointer, Value

PACE = 1 << 16
"""The pace of streams that move on at every step."""


def kernel(
    b: Builder,
    layout: Panels,
    row_stride: int,
    rows: int,
    paced: bool = False,
    weights_row: int | None = None,
    at_once: int = 1,
    prefetches: bool = True,
    panels: int = 1,
) -> Function:
    """`void kernel(rows, weights, steps, accumulators, resume, weights stream, its stride, rows stream, its stride,
    pace, run)`.

    Streams move on by their strides at every iteration, of `at_once` steps.  If these are several, the weights stream
    is `tiling.SPREAD` ones, which are as far apart as so many parts of the steps' weights are.  Streams of a `paced`
    kernel are runs of 2**run lines, which begin a stride apart; after n steps they are at line n * pace / PACE, rounded
    down.  Without `prefetches`, streams are not looked at.  Rows are multiplied by several `panels`, which lie one
    behind the other.
    Weights are in the order of `Panels`, or, with `weights_row`, of f32, lie as tensor<ExKxN> in rows of so many bytes.
    Accumulators are [panel][row][vector of the panel][lane] f32 or i32 in memory, read only if `resume` (i1) says so.
    """
    source = Kernel(layout.flat, row_stride, rows, paced, weights_row, at_once, prefetches, panels)
    return b.later(source.name, [b.ptr, b.ptr, b.i64, b.ptr, b.i1, b.ptr, b.i64, b.ptr, b.i64, b.i64, b.i64], source)


@dataclass(frozen=True)
class Kernel:
    """What a kernel is written from; see `kernel`."""

    layout: Panels
    row_stride: int
    rows: int
    paced: bool = False
    weights_row: int | None = None
    at_once: int = 1
    prefetches: bool = True
    panels: int = 1

    @property
    def name(self) -> str:
        layout, row = self.layout, self.weights_row
        name = f"kernel_{layout.kernel}_{self.rows}x{layout.vectors}_{self.row_stride}{'_paced' if self.paced else ''}"
        name = f"{name}_in_rows_of_{row}" if row else name
        name = f"{name}_by_{self.at_once}" if self.at_once > 1 else name
        name = name if self.prefetches else f"{name}_still"
        name = f"{name}_of_{self.panels}_panels" if self.panels > 1 else name
        return f"{name}_{digest(self)}"

    def write(self, b: Builder, arguments: Sequence[Any]) -> None:
        given = KernelArguments(*arguments)
        if isinstance(self.layout, CodePanels):
            # Its streams move on at every step.
            code_kernel.body(b, self.layout, self.row_stride, self.rows, given, self.prefetches, self.panels)
        else:
            _Body(b, self, given).body()


@dataclass(frozen=True)
class _Body:
    """The body of a kernel for weights that are no codes."""

    b: Builder
    kernel: Kernel
    given: KernelArguments

    @property
    def layout(self) -> Panels:
        return self.kernel.layout

    @property
    def sums(self) -> int:
        return self.kernel.panels * self.kernel.rows * self.layout.vectors

    @property
    def step_bytes(self) -> int:
        return self.kernel.weights_row or self.layout.step_bytes

    def body(self) -> None:
        b, given, at_once = self.b, self.given, self.kernel.at_once
        vector, width = b.vec(self.layout.lanes, b.f32), 4 * self.layout.lanes
        places = [given.accumulators + width * n for n in range(self.sums)]
        sums = given.first_sums(b, vector, places, width)
        in_run = (b.index(1) << given.run) - 1
        ahead = [b.index(0)] if self.kernel.paced else [given.weights_ahead, given.rows_ahead]
        state = [*sums, given.rows, given.weights, *(ahead if self.kernel.prefetches else [])]
        begin: Value | int = 0
        if at_once > 1:
            begin = given.steps // at_once * at_once
            with b.for_(0, begin, at_once, carry=state, unroll=False) as loop:
                loop.carry(*(self._spread if self.kernel.prefetches else self._still)(loop.values))
            state = loop.results
        with b.for_(begin, given.steps, carry=state, unroll=False) as loop:
            loop.carry(*self._single(loop.values, in_run))
        for place, value in zip(places, loop.results, strict=False):
            place.store(value, align=width)

    def _single(self, state: Sequence[Value], in_run: Value) -> list[Value]:
        """One step; `state` are the sums, where the rows, the weights, and the streams are."""
        given, layout = self.given, self.layout
        sums, a, weights, moving = self._parts(state)
        if not self.kernel.prefetches:
            return [*self._step(sums, a, weights), a + 4, weights + self.step_bytes]
        if self.kernel.paced:
            lines = moving[0] >> (PACE.bit_length() - 1)
            run, line = lines >> given.run, (lines & in_run) * LINE
            streams = [given.weights_ahead + run * given.weights_stride + line]
            streams.append(given.rows_ahead + run * given.rows_stride + line)
            moved = [moving[0] + given.pace]
        else:
            streams = [Pointer(stream.raw) for stream in moving]
            moved = [streams[0] + given.weights_stride, streams[1] + given.rows_stride]
        sums = self._step(sums, a, weights)
        if self.kernel.at_once == 1:  # else these few steps are left of many
            for ahead in range(1 if self.kernel.paced else layout.prefetched_lines):
                (streams[0] + ahead * LINE).prefetch()
            streams[1].prefetch()
        return [*sums, a + 4, weights + self.step_bytes, *moved]

    def _spread(self, state: Sequence[Value]) -> list[Value]:
        """`at_once` steps."""
        given = self.given
        streams = [Pointer(stream.raw) for stream in self._parts(state)[3]]
        apart = given.steps * (self.step_bytes // tiling.SPREAD)
        stepped = self._still(state)
        for number in range(tiling.SPREAD):
            (streams[0] + apart * number).prefetch()
        streams[1].prefetch()
        moved = [streams[0] + given.weights_stride, streams[1] + given.rows_stride]
        return [*stepped, *moved]

    def _still(self, state: Sequence[Value]) -> list[Value]:
        """`at_once` steps that prefetch nothing: sums, and where rows and weights are after them."""
        sums, a, weights, _ = self._parts(state)
        for step in range(self.kernel.at_once):
            sums = self._step(sums, a + 4 * step, weights + step * self.step_bytes)
        return [*sums, a + 4 * self.kernel.at_once, weights + self.kernel.at_once * self.step_bytes]

    def _parts(self, state: Sequence[Value]) -> tuple[Sequence[Value], Pointer, Pointer, Sequence[Value]]:
        a, weights = (Pointer(value.raw) for value in state[self.sums : self.sums + 2])
        return state[: self.sums], a, weights, state[self.sums + 2 :]

    def _step(self, sums: Sequence[Value], a: Pointer, weights: Pointer) -> list[Value]:
        """The sums after one more step."""
        b, layout = self.b, self.layout
        vector = b.vec(layout.lanes, b.f32)
        align = 4 if self.kernel.weights_row else layout.vector_bytes
        after: list[Value] = []
        for panel in range(self.kernel.panels):
            columns = _columns(b, layout, weights + panel * layout.panel_bytes, align)
            for row in range(self.kernel.rows):
                element = b.splat(vector, (a + row * self.kernel.row_stride).load(b.f32))
                for column in columns:
                    after.append(_multiply_add(b, layout, element, column, sums[len(after)]))
        return after


def _columns(b: Builder, layout: Panels, weights: Pointer, align: int) -> list[Value]:
    """The vectors of a step's weights as the multiplication takes them."""
    vector = b.vec(layout.lanes, b.f32)
    if layout.interleaved:
        found = []
        for first in range(0, layout.step_bytes, 2 * layout.vector_bytes):
            words = (weights + first).load(b.vec(layout.lanes, b.i32), align=2 * layout.vector_bytes)
            found += [(words << 16).bitcast(vector), (words & -(1 << 16)).bitcast(vector)]
        return found
    widened = {Arithmetic.WIDENED: b.bf16, Arithmetic.HALVES: b.f16}.get(layout.arithmetic)
    found = []
    for at in (weights + n * layout.vector_bytes for n in range(layout.vectors)):
        found.append(b.convert(at.load(b.vec(layout.lanes, widened or b.f32), align=align), b.f32))
    return found


def _multiply_add(b: Builder, layout: Panels, element: Value, column: Value, total: Value) -> Value:
    if layout.arithmetic is Arithmetic.PAIRS:
        return b.dot_bf16(element, column, total)
    return b.fma(element, column, total)
