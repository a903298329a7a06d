"""The microkernel for quantised weights: codes are decoded in registers, between the load and the multiplication.

Sums of a step are f32, or i32 where rows are integers.  Where steps are chains of their own, they start at zero
and join f32 totals at the step's end, times the group's scale; totals grow in ascending order of steps whatever the
number of rows, so that an element's bits depend on its row and column alone.  Integers are exact in any order; where
they are `short`, an unrolled part of a step is summed in i16 first.
Unsigned codes are the code plus an offset: the sums of a group start at minus the offset times the sum of the row's
elements, which the row brings, and those of a whole channel are put right where its scale is applied.
"""

from __future__ import annotations

from typing import NamedTuple

from moec.backends.cpu import decode, tiling
from moec.backends.cpu.builder import Builder
from moec.backends.cpu.codes import SUM_FACTOR, CodePanels, DecodedPanels
from moec.backends.cpu.frame import LINE
from moec.backends.cpu.kernel_arguments import KernelArguments
from moec.backends.cpu.layout import Arithmetic
from moec.backends.cpu.values import Pointer, Value

UNROLLED = {Arithmetic.WIDENED: 32}
SHORT_UNROLLED = 64
DECODED_UNROLLED = 96
MOST_UNROLLED = 256
"""All four: most multiplications of an unrolled part of a step; the second of whole numbers of 8 bits on AVX2.
The end of a loop costs up to 8 % of a group of 32.  Where each multiplication is preceded by a conversion, it
costs less, and compiling takes longer."""
MOST_BLOCKS = 16
"""Most blocks of an unrolled part of a step.  LLVM may put the prefetches of such a part, one a block, all in front:
more of them than the processor has misses under way wait for each other, while nothing is multiplied."""


def body(
    b: Builder, layout: CodePanels, row_stride: int, rows: int, given: KernelArguments, prefetches: bool, panels: int
) -> None:
    """As the kernel of `microkernel.kernel`, never paced; `steps` are the layout's.

    With `prefetches`, it is of one panel.
    """
    kernel = _Kernel(b, layout, row_stride, rows, prefetches)
    if not prefetches:
        kernel.still(given, panels)
        return
    width = layout.register_bytes
    places = [given.accumulators + width * n for n in range(rows * layout.vectors)]
    type_ = b.vec(layout.lanes, b.i32 if layout.integer_totals else b.f32)
    start = given.first_sums(b, type_, places, width)
    state = [*start, given.rows, given.weights, given.weights_ahead, given.rows_ahead]
    together = tiling.steps_together(b.variant, layout, rows)
    state = kernel.loop(given, given.steps // together, together, state)
    if any(steps % together for steps in tiling.steps_of_units(layout)):
        state = kernel.loop(given, given.steps % together, 1, state)
    for place, value in zip(places, state, strict=False):
        place.store(value, align=width)


class _Step(NamedTuple):
    """Where a step, or a block of it, begins: of the rows, of the weights, and of what is prefetched meanwhile."""

    rows: Pointer
    weights: Pointer
    ahead: Pointer

    def block(self, layout: CodePanels, number: int) -> _Step:
        """Where its blocks begin from this number on."""
        size = number * layout.block_bytes
        return _Step(self.rows + 4 * number * layout.block_dots, self.weights + size, self.ahead + size)


class _Kernel:
    """Parts of the body."""

    def __init__(self, b: Builder, layout: CodePanels, row_stride: int, rows: int, prefetches: bool) -> None:
        self.b, self.layout, self.row_stride, self.rows, self.prefetches = b, layout, row_stride, rows, prefetches
        self.sum_type = b.vec(layout.lanes, b.i32 if layout.arithmetic.integers else b.f32)
        self.total_type = b.vec(layout.lanes, b.i32 if layout.integer_totals else b.f32)

    def still(self, given: KernelArguments, panels: int) -> None:
        """Panels side by side, or decoded ones: as many at once as registers hold the sums of.

        Where steps are chains, totals wait in memory, so that all panels are read side by side.
        """
        b, layout = self.b, self.layout
        width, sums = layout.register_bytes, self.rows * layout.vectors
        at_once = tiling.panels_at_once(layout, self.rows, panels)

        def places(first: int) -> list[list[Pointer]]:
            begins = [given.accumulators + panel * sums * width for panel in range(first, first + at_once)]
            return [[begin + n * width for n in range(sums)] for begin in begins]

        if not layout.chained:
            for first in range(0, panels, at_once):
                every = [place for of_panel in places(first) for place in of_panel]
                start = given.first_sums(b, self.total_type, every, width)
                with b.for_(0, given.steps, carry=[*start, given.rows, given.weights]) as loop:
                    a, weights = (Pointer(value.raw) for value in loop.values[-2:])
                    steps = self._of_panels(a, weights + first * layout.panel_bytes, at_once)
                    found, _ = self.blocks(steps, given.rows_ahead, given.rows_stride, self._split(loop.values[:-2]))
                    totals = [value for of_panel in found for value in of_panel]
                    loop.carry(*totals, a + layout.row_step_bytes, weights + layout.step_bytes)
                for place, value in zip(every, loop.results, strict=False):
                    place.store(value, align=width)
            return
        with b.if_(~given.resume), b.for_(0, panels * sums) as loop:
            given.accumulators.at(loop.index, width).store(b.splat(self.total_type, 0), align=width)
        with b.for_(0, given.steps, carry=[given.rows, given.weights, given.weights_ahead]) as loop:
            a, weights = (Pointer(value.raw) for value in loop.values[:2])
            for first in range(0, panels, at_once):
                steps = self._of_panels(a, weights + first * layout.panel_bytes, at_once)
                sums_of = [self.first_sums(a)] * at_once
                found, _ = self.blocks(steps, given.rows_ahead, given.rows_stride, sums_of)
                for step, kept, of_panel in zip(steps, places(first), found, strict=True):
                    before = [total.load(self.total_type, align=width) for total in kept]
                    after = self.join(step.weights + layout.step_code_bytes, before, of_panel)
                    for total, value in zip(kept, after, strict=True):
                        total.store(value, align=width)
            if tiling.prefetches_beside(layout):
                for panel in range(panels):
                    for byte in range(0, layout.step_bytes, LINE):
                        (Pointer(loop.values[2].raw) + panel * layout.panel_bytes + byte).prefetch()
            loop.carry(a + layout.row_step_bytes, weights + layout.step_bytes, loop.values[2] + layout.step_bytes)

    def loop(self, given: KernelArguments, count: Value, together: int, state: list[Value]) -> list[Value]:
        """Totals, rows, weights and the two streams after `count` times `together` steps."""
        b, layout = self.b, self.layout
        with b.for_(0, count, carry=state) as loop:
            totals = loop.values[: self.rows * layout.vectors]
            a, weights, ahead, rows_ahead = (Pointer(value.raw) for value in loop.values[len(totals) :])
            steps = []
            for n in range(together):
                steps.append(_Step(a + n * layout.row_step_bytes, weights + n * layout.step_bytes, ahead))
                ahead = ahead + given.weights_stride
            sums = [self.first_sums(step.rows) if layout.chained else totals for step in steps]
            sums, rows_ahead = self.blocks(steps, rows_ahead, given.rows_stride, sums)
            for step, found in zip(steps, sums, strict=True):
                totals = self.join(step.weights + layout.step_code_bytes, totals, found) if layout.chained else found
                for byte in range(layout.step_code_bytes, layout.step_bytes, LINE):
                    (step.ahead + byte).prefetch()
            moved = [a + together * layout.row_step_bytes, weights + together * layout.step_bytes, ahead]
            loop.carry(*totals, *moved, rows_ahead)
        return loop.results

    def first_sums(self, a: Pointer) -> list[Value]:
        """What the sums of a step start with."""
        b, layout = self.b, self.layout
        offset = decode.offset(layout)
        if not offset or not layout.grouped:
            return [b.splat(self.sum_type, 0)] * (self.rows * layout.vectors)
        found = []
        up, down = offset // SUM_FACTOR, SUM_FACTOR // offset
        for row in range(self.rows):
            sums = b.splat(self.sum_type, (a + (row * self.row_stride + layout.row.group_sum)).load(b.i32))
            if up > 1:
                sums = sums << (up.bit_length() - 1)
            elif down > 1:
                sums = sums.arithmetic_shift(down.bit_length() - 1)
            found += [sums] * layout.vectors
        return found

    def join(self, scales: Pointer, totals: list[Value], sums: list[Value]) -> list[Value]:
        """Totals with the sums of a step."""
        b, layout = self.b, self.layout
        if layout.grouped:
            sums = [b.convert(value, b.f32) for value in sums]
        else:
            return [total + value for total, value in zip(totals, sums, strict=True)]
        element = b.f32 if layout.scale == "f32" else b.bf16
        type_ = b.vec(layout.lanes, element)
        width = layout.scale_bytes // layout.vectors
        scale = [b.convert((scales + n * width).load(type_, align=width), b.f32) for n in range(layout.vectors)]
        pairs = zip(totals, sums, strict=True)
        return [b.fma(value, scale[n % layout.vectors], total) for n, (total, value) in enumerate(pairs)]

    def blocks(
        self, steps: list[_Step], rows_ahead: Pointer, rows_stride: Value, sums: list[list[Value]]
    ) -> tuple[list[list[Value]], Pointer]:
        """The sums of each step with those of its blocks, and how far rows are prefetched then."""
        b, layout = self.b, self.layout
        block = layout.block_dots * layout.vectors * self.rows * len(steps)
        parts = [n for n in range(1, layout.step_blocks + 1) if layout.step_blocks % n == 0]
        most = UNROLLED.get(layout.arithmetic, MOST_UNROLLED)
        if isinstance(layout, DecodedPanels):
            most = DECODED_UNROLLED
        elif layout.widened_integers and layout.bits == 8:
            most = SHORT_UNROLLED
        blocks = layout.short_dots // layout.block_dots if layout.short else MOST_BLOCKS
        unrolled = max(n for n in parts if n == 1 or (n <= blocks and n * block <= most))
        size = layout.block_bytes if layout.chained else LINE * layout.prefetched_lines // layout.step_blocks

        def some(steps: list[_Step], rows_ahead: Pointer, sums: list[list[Value]]) -> tuple[list[list[Value]], Pointer]:
            # In the order in which they lie, so that memory sees one stream.
            asked = steps if self.prefetches else []
            lines = [step.ahead + line for step in asked for line in range(0, unrolled * size, LINE)]
            totals = sums
            if layout.short:
                none = b.splat(b.vec(2 * layout.lanes, b.i16), 0)
                sums = [[none] * len(found) for found in totals]
            for n in range(unrolled):
                sums = self._block([step.block(layout, n) for step in steps], sums)
                here = lines[n * len(lines) // unrolled : (n + 1) * len(lines) // unrolled]
                for line in here:
                    line.prefetch()
                for _ in steps if here else ():
                    rows_ahead.prefetch()
                    rows_ahead = rows_ahead + rows_stride
            if layout.short:
                both = [zip(wide, found, strict=True) for wide, found in zip(totals, sums, strict=True)]
                sums = [[decode.add_short(b, total, value) for total, value in pairs] for pairs in both]
            return sums, rows_ahead

        if unrolled == layout.step_blocks:
            return some(steps, rows_ahead, sums)
        flat = [value for found in sums for value in found]
        places = [place for step in (steps if self.prefetches else steps[:1]) for place in step]
        with b.for_(0, layout.step_blocks // unrolled, carry=[*flat, *places, rows_ahead]) as loop:
            at = [Pointer(value.raw) for value in loop.values[len(flat) :]]
            moving = [_Step(*at[n : n + 3]) for n in range(0, len(at) - 1, 3)]
            here = moving if self.prefetches else self._of_panels(*moving[0][:2], len(steps))
            sums, rows_ahead = some(here, at[-1], self._split(loop.values[: len(flat)]))
            places = [place for step in moving for place in step.block(layout, unrolled)]
            loop.carry(*[value for found in sums for value in found], *places, rows_ahead)
        return self._split(loop.results[: len(flat)]), Pointer(loop.results[-1].raw)

    def _of_panels(self, rows: Pointer, weights: Pointer, panels: int) -> list[_Step]:
        """A step of each of some panels, which lie one behind the other."""
        places = [weights + panel * self.layout.panel_bytes for panel in range(panels)]
        return [_Step(rows, place, place) for place in places]

    def _split(self, sums: list[Value]) -> list[list[Value]]:
        """Sums step by step."""
        size = self.rows * self.layout.vectors
        return [sums[n : n + size] for n in range(0, len(sums), size)]

    def _block(self, steps: list[_Step], sums: list[list[Value]]) -> list[list[Value]]:
        b, layout = self.b, self.layout
        blocks = [decode.CodeBlock(b, layout, step.weights) for step in steps]
        element = b.vec(layout.lanes, b.i32)
        sums = [list(found) for found in sums]
        for dot in range(layout.block_dots):
            elements: dict[tuple[Pointer, int], Value] = {}
            for step, block, found in zip(steps, blocks, sums, strict=True):
                vectors = [block.vector(dot, n) for n in range(layout.vectors)]
                for row in range(self.rows):
                    if (step.rows, row) not in elements:
                        word = (step.rows + (row * self.row_stride + 4 * dot)).load(b.i32)
                        elements[step.rows, row] = b.splat(element, word)
                    for n, vector in enumerate(vectors):
                        at = row * layout.vectors + n
                        found[at] = decode.multiply_add(b, layout, elements[step.rows, row], vector, found[at])
            if not self.prefetches or tiling.in_order(b.variant, layout):
                # LLVM would multiply by one vector of all dots, then by the next, with every row's elements in memory.
                sums = [b.here(found) for found in sums]
        return sums
