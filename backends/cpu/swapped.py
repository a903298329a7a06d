"""Products of few rows with their operands swapped: weights are broadcast from where the caller holds them.

Of tensor<ExNxK>, the elements of a column lie one behind the other, so that a broadcast takes what a step multiplies,
an element of f32 or a pair of bf16, straight from memory.  Then rows have to stand in the lanes of vectors: a chunk is
transposed once, for all panels, and no weights are expanded.  A vector's lanes beyond the last row are wasted, so this
is done where they are few, and expanding is not made up for by many rows.

Every sum is the same chain of multiply-adds as in `microkernel`, and so has the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from moec.backends.cpu.builder import Builder, Function
from moec.backends.cpu.frame import LINE, Call, Size
from moec.backends.cpu.layout import Arithmetic, Panels
from moec.backends.cpu.plain import Rows as Held
from moec.backends.cpu.product import Block, Rows, pick
from moec.backends.cpu.sources import At, Coming, Multiplied
from moec.backends.cpu.transpose import transpose
from moec.backends.cpu.values import Pointer, Value

LANES = 16
REGISTERS = 32

COLUMNS = 8
"""Columns of a kernel, whose rows in memory may all fall into one set of the first-level cache, which has 12 ways."""

GROUP = 3
"""Most vectors of rows of a kernel: their sums, the vectors themselves and a broadcast fill the registers."""

FEWEST, MOST = 2, 6
"""Vectors of rows of a chunk: one alone leaves multipliers waiting for sums; of many, expanding is a small part."""

MOST_BYTES = 512 * 1024
"""Most bytes of a chunk's transposed rows: they stay in the second-level cache."""

WASTED = 10
"""Most lanes beyond the last row.  Expanding a word takes as long as multiplying it by ten rows."""


@dataclass(frozen=True)
class Swapped:
    """How a matmul is multiplied so, and the word of the threads' memory for transposed rows."""

    layout: Panels
    source: Held
    most: int
    word: int

    @property
    def vector_stride(self) -> int:
        """Bytes between the vectors of rows of one step; not a power of two."""
        return self.layout.steps * 4 * LANES + LINE

    @property
    def sums_stride(self) -> int:
        """Bytes between the sums of neighbouring columns; not a power of two."""
        return (self.most * 4 + 4) * LANES

    @property
    def column_bytes(self) -> int:
        return self.layout.inner * self.source.width


def most_vectors(layout: Panels, source: Multiplied, registers: int) -> int:
    """Most vectors of rows that are multiplied so; 0: none."""
    if not isinstance(source, Held) or layout.lanes != LANES or registers < REGISTERS:
        return 0
    as_it_is = layout.arithmetic is Arithmetic.PAIRS or (layout.arithmetic is Arithmetic.F32 and source.width == 4)
    whole = layout.inner % (LANES * layout.elements_per_step) == 0 and layout.columns % layout.panel_columns == 0
    most = min(MOST, MOST_BYTES // (layout.steps * 4 * LANES))
    return most if as_it_is and whole and most >= FEWEST else 0


def memory(layout: Panels, most: int) -> Size:
    """Of a thread: transposed rows, and the sums of a panel before and after they are transposed."""
    rows = most * (layout.steps * 4 * LANES + LINE)
    return Size(per_thread=rows + layout.vectors * LANES * (8 * most + 4) * LANES)


@dataclass(frozen=True)
class Transposed:
    """A chunk of rows.  `worth` (i1): they are multiplied so, and stand transposed in the thread's memory."""

    swapped: Swapped
    rows: Rows
    vectors: Value
    memory: Pointer
    worth: Value

    @property
    def sums(self) -> Pointer:
        """[column of the panel][row]"""
        return self.memory + self.swapped.most * self.swapped.vector_stride

    @property
    def accumulators(self) -> Pointer:
        """[row][vector of the panel][lane]"""
        return self.sums + self.swapped.layout.vectors * LANES * self.swapped.sums_stride


def transposed(call: Call, swapped: Swapped, rows: Rows) -> Transposed:
    """Transposes the rows of a chunk if that is worth it; called once for all panels."""
    b, layout = call.b, swapped.layout
    vectors = (rows.count + (LANES - 1)) // LANES
    fits = (vectors >= FEWEST) & (vectors <= swapped.most)
    worth = fits & (vectors * LANES - rows.count <= WASTED)
    made = Transposed(swapped, rows, vectors, call.own(swapped.word, memory(layout, swapped.most)), worth)
    vector = b.vec(LANES, b.i32)
    with b.if_(worth), b.for_(0, vectors) as number:
        last = rows.count - 1
        starts = [rows.first.at(b.minimum(number.index * LANES + n, last), rows.stride) for n in range(LANES)]
        to = made.memory.at(number.index, swapped.vector_stride)
        with b.for_(0, layout.steps, LANES) as step:
            square = [start.at(step.index, 4).load(vector, align=4) for start in starts]
            for n, words in enumerate(transpose(b, square)):
                (to.at(step.index, 4 * LANES) + n * 4 * LANES).store(words, align=4 * LANES)
    return made


def either(
    call: Call,
    chunk: Transposed | None,
    at: At,
    following: At,
    expanded: Callable[[], None],
    *,
    before: Callable[[Block], None] | None = None,
    after: Callable[[Block], None],
) -> None:
    """A chunk of rows times one panel, swapped if that is worth it, else by `expanded`, a `product.panel_product`.

    The other arguments are those of that product.
    """
    if chunk is None:
        expanded()
        return

    def swap() -> list[Value]:
        _product(call, chunk, at, following, before, after)
        return []

    def expand() -> list[Value]:
        expanded()
        return []

    call.b.choose(chunk.worth, [], swap, expand)


def _product(
    call: Call,
    chunk: Transposed,
    at: At,
    following: At,
    before: Callable[[Block], None] | None,
    after: Callable[[Block], None],
) -> None:
    """All rows are one block."""
    b, swapped, layout = call.b, chunk.swapped, chunk.swapped.layout
    block = Block(chunk.rows, at, b.index(0), chunk.rows.count, chunk.accumulators)
    if before is not None:
        before(block)
    steps = b.index(layout.steps)
    coming = Coming(following, b.index(0), steps, steps, following, b.index(0), 1)
    groups = (chunk.vectors + (GROUP - 1)) // GROUP
    size, larger = chunk.vectors // groups, chunk.vectors % groups
    parts = LANES // COLUMNS
    shares = groups * (layout.vectors * parts)
    for vector in range(layout.vectors):
        group, operand = vector // layout.operands, vector % layout.operands
        column = at.panel * layout.panel_columns + group * layout.lanes
        matrix = swapped.source.matrix(call, operand, at.expert).at(column, swapped.column_bytes)
        with b.for_(0, parts) as part, b.for_(0, groups, carry=[b.index(0)]) as loop:
            count = size + b.convert(loop.index < larger, b.i64, signed=False)
            share = (part.index + vector * parts) * groups + loop.index
            ahead = swapped.source.ahead(call, coming, share, shares)
            second, second_stride = ahead.first, ahead.stride
            if ahead.second is not None and ahead.second_stride is not None:
                needed = b.constant(b.i1, 1) if ahead.needed is None else ahead.needed
                second = pick(b, needed, ahead.second, second)
                second_stride = b.select(needed, ahead.second_stride, second_stride)
            column_ = part.index * COLUMNS
            arguments = (
                chunk.memory.at(loop.value, swapped.vector_stride),
                matrix.at(column_, swapped.column_bytes),
                chunk.sums.at(column_ + vector * LANES, swapped.sums_stride).at(loop.value, 4 * LANES),
                *(ahead.first, ahead.stride, second, second_stride),
            )
            for vectors in range(1, GROUP + 1):
                with b.if_(count.equals(vectors)):
                    b.call(_kernel(b, swapped, vectors), *arguments)
            loop.carry(loop.value + count)
    _turn(b, chunk)
    after(block)


def _turn(b: Builder, chunk: Transposed) -> None:
    """Sums by column become sums by row."""
    layout, row_bytes = chunk.swapped.layout, 4 * LANES * chunk.swapped.layout.vectors
    type_ = b.vec(LANES, b.i32)
    with b.for_(0, chunk.vectors) as number, b.for_(0, layout.vectors) as vector:
        source = chunk.sums.at(vector.index * LANES, chunk.swapped.sums_stride).at(number.index, 4 * LANES)
        to = chunk.accumulators.at(number.index * LANES, row_bytes).at(vector.index, 4 * LANES)
        square = [(source + n * chunk.swapped.sums_stride).load(type_, align=4 * LANES) for n in range(LANES)]
        for n, row in enumerate(transpose(b, square)):
            (to + n * row_bytes).store(row, align=4 * LANES)


def _kernel(b: Builder, swapped: Swapped, vectors: int) -> Function:
    """`void kernel(rows, columns, sums, stream, its stride, another stream, its stride)`: `COLUMNS` columns of weights
    times so many vectors of rows, over the whole inner dimension; streams are prefetched."""
    layout = swapped.layout
    name = f"swapped_{layout.arithmetic.value}_{vectors}_{layout.inner}_{swapped.sums_stride}"
    function = b.declare(name, [b.ptr, b.ptr, b.ptr, b.ptr, b.i64, b.ptr, b.i64])
    if not function.operation.body.blocks:
        with b.define(function) as (rows, columns, sums, first, first_stride, second, second_stride):
            type_ = b.vec(LANES, b.f32)
            start = [b.splat(type_, 0.0)] * (COLUMNS * vectors)
            with b.for_(0, layout.steps, carry=[*start, rows, columns, first, second]) as loop:
                totals = loop.values[: len(start)]
                a, weights, ahead, also = (Pointer(value.raw) for value in loop.values[len(start) :])
                loaded = [(a + n * swapped.vector_stride).load(type_, align=4 * LANES) for n in range(vectors)]
                for column in range(COLUMNS):
                    element = b.splat(type_, (weights + column * swapped.column_bytes).load(b.f32))
                    for n, row in enumerate(loaded):
                        place = column * vectors + n
                        if layout.arithmetic is Arithmetic.PAIRS:
                            totals[place] = b.dot_bf16(row, element, totals[place])
                        else:
                            totals[place] = b.fma(row, element, totals[place])
                ahead.prefetch()
                also.prefetch()
                loop.carry(*totals, a + 4 * LANES, weights + 4, ahead + first_stride, also + second_stride)
            for place, total in enumerate(loop.results[: len(start)]):
                column, n = divmod(place, vectors)
                (sums + column * swapped.sums_stride + n * 4 * LANES).store(total, align=4 * LANES)
    return function
