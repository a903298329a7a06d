"""The microkernel for quantised weights: codes are decoded in registers, between the load and the multiplication.

Sums of a step are f32, or i32 where rows are integers.  Where steps are chains of their own, they start at zero
and join f32 totals at the step's end, times the group's scale; totals grow in ascending order of steps whatever the
number of rows, so that an element's bits depend on its row and column alone.  Integers are exact in any order.
Unsigned codes are the code plus an offset: the sums of a group start at minus the offset times the sum of the row's
elements, which the row brings, and those of a whole channel are put right where its scale is applied.
"""

from __future__ import annotations

from moec.backends.cpu import decode
from moec.backends.cpu.builder import Builder
from moec.backends.cpu.codes import CodePanels
from moec.backends.cpu.frame import LINE
from moec.backends.cpu.kernel_arguments import KernelArguments
from moec.backends.cpu.layout import Arithmetic
from moec.backends.cpu.values import Pointer, Value

UNROLLED = {Arithmetic.WIDENED: 32}
MOST_UNROLLED = 256
"""Most multiplications of an unrolled part of a step: the end of a loop costs up to 8 % of a group of 32.  Where each
is preceded by a conversion, it costs less, and compiling takes longer."""


def body(b: Builder, layout: CodePanels, row_stride: int, rows: int, given: KernelArguments) -> None:
    """As the kernel of `microkernel.kernel`, never paced; `steps` are the layout's."""
    kernel = _Kernel(b, layout, row_stride, rows)
    width = layout.register_bytes
    places = [given.accumulators + width * n for n in range(rows * layout.vectors)]
    type_ = kernel.sum_type if not layout.chained else b.vec(layout.lanes, b.f32)
    start = given.first_sums(b, type_, places, width)
    carried = [*start, given.rows, given.weights, given.weights_ahead, given.rows_ahead]
    with b.for_(0, given.steps, carry=carried) as loop:
        totals = loop.values[: len(places)]
        a, weights, next_weights, next_rows = (Pointer(value.raw) for value in loop.values[len(places) :])
        sums = kernel.first_sums(a) if layout.chained else totals
        sums, rows_ahead = kernel.blocks(a, weights, next_weights, next_rows, given.rows_stride, sums)
        if layout.chained:
            sums = kernel.join(weights + layout.step_code_bytes, totals, sums)
            for byte in range(layout.step_code_bytes, layout.step_bytes, LINE):
                (next_weights + byte).prefetch()
        moved = [a + layout.row_step_bytes, weights + layout.step_bytes, next_weights + given.weights_stride]
        loop.carry(*sums, *moved, rows_ahead)
    for place, value in zip(places, loop.results, strict=False):
        place.store(value, align=width)


class _Kernel:
    """Parts of the body."""

    def __init__(self, b: Builder, layout: CodePanels, row_stride: int, rows: int) -> None:
        self.b, self.layout, self.row_stride, self.rows = b, layout, row_stride, rows
        self.sum_type = b.vec(layout.lanes, b.i32 if layout.arithmetic.integers else b.f32)

    def first_sums(self, a: Pointer) -> list[Value]:
        """What the sums of a step start with."""
        b, layout = self.b, self.layout
        offset = decode.offset(layout)
        if not offset or not layout.grouped:
            return [b.splat(self.sum_type, 0)] * (self.rows * layout.vectors)
        found = []
        for row in range(self.rows):
            negated = (a + (row * self.row_stride + layout.row.group_sum)).load(b.i32)
            found += [b.splat(self.sum_type, negated) << (offset.bit_length() - 1)] * layout.vectors
        return found

    def join(self, scales: Pointer, totals: list[Value], sums: list[Value]) -> list[Value]:
        """Totals with the sums of a step."""
        b, layout = self.b, self.layout
        sums = [b.convert(value, b.f32) for value in sums]
        if not layout.grouped:
            return [total + value for total, value in zip(totals, sums, strict=True)]
        element = b.f32 if layout.scale == "f32" else b.bf16
        type_ = b.vec(layout.lanes, element)
        width = layout.scale_bytes // layout.vectors
        scale = [b.convert((scales + n * width).load(type_, align=width), b.f32) for n in range(layout.vectors)]
        pairs = zip(totals, sums, strict=True)
        return [b.fma(value, scale[n % layout.vectors], total) for n, (total, value) in enumerate(pairs)]

    def blocks(
        self, a: Pointer, weights: Pointer, ahead: Pointer, rows_ahead: Pointer, rows_stride: Value, sums: list[Value]
    ) -> tuple[list[Value], Pointer]:
        """The sums with those of a step's blocks, and how far rows are prefetched then."""
        b, layout = self.b, self.layout
        block = layout.block_dots * layout.vectors * self.rows
        parts = [n for n in range(1, layout.step_blocks + 1) if layout.step_blocks % n == 0]
        most = UNROLLED.get(layout.arithmetic, MOST_UNROLLED)
        unrolled = max(n for n in parts if n == 1 or n * block <= most)

        def some(
            a: Pointer, weights: Pointer, ahead: Pointer, rows_ahead: Pointer, sums: list[Value]
        ) -> tuple[list[Value], Pointer]:
            for n in range(unrolled):
                here = weights + n * self.layout.block_bytes
                sums = self._block(a + 4 * n * layout.block_dots, here, sums)
                for line in range(self.lines):
                    (ahead + (n * self.layout.block_bytes + line * LINE)).prefetch()
                rows_ahead.prefetch()
                rows_ahead = rows_ahead + rows_stride
            return sums, rows_ahead

        if unrolled == layout.step_blocks:
            return some(a, weights, ahead, rows_ahead, sums)
        with b.for_(0, layout.step_blocks // unrolled, carry=[*sums, a, weights, ahead, rows_ahead]) as loop:
            a, weights, ahead, rows_ahead = (Pointer(value.raw) for value in loop.values[len(sums) :])
            sums, rows_ahead = some(a, weights, ahead, rows_ahead, loop.values[: len(sums)])
            size = unrolled * self.layout.block_bytes
            loop.carry(*sums, a + 4 * unrolled * layout.block_dots, weights + size, ahead + size, rows_ahead)
        *sums, _, _, _, last = loop.results
        return sums, Pointer(last.raw)

    @property
    def lines(self) -> int:
        """Lines of weights that are prefetched for a block."""
        return -(-self.layout.block_bytes // LINE) if self.layout.chained else self.layout.prefetched_lines

    def _block(self, a: Pointer, weights: Pointer, sums: list[Value]) -> list[Value]:
        b, layout = self.b, self.layout
        block = decode.CodeBlock(b, layout, weights)
        element = b.vec(layout.lanes, b.i32)
        sums = list(sums)
        for dot in range(layout.block_dots):
            vectors = [block.vector(dot, n) for n in range(layout.vectors)]
            for row in range(self.rows):
                x = b.splat(element, (a + (row * self.row_stride + 4 * dot)).load(b.i32))
                for n, vector in enumerate(vectors):
                    at = row * layout.vectors + n
                    sums[at] = decode.multiply_add(b, layout, x, vector, sums[at])
        return sums
