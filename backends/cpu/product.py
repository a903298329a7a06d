"""A chunk of rows times one panel: balanced blocks of rows, units of steps, and what to prefetch meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from moec.backends.cpu import microkernel, tiling
from moec.backends.cpu.builder import Builder
from moec.backends.cpu.frame import Call
from moec.backends.cpu.layout import Panels
from moec.backends.cpu.sources import At, Coming, Source
from moec.backends.cpu.values import Pointer, Value


@dataclass(frozen=True)
class Rows:
    """Rows as the microkernel takes them: 4 bytes a step, `stride` bytes apart."""

    first: Pointer
    stride: int
    count: Value


@dataclass(frozen=True)
class Block:
    """A block of the chunk's rows, [first, first + count), and its accumulators: [row][vector of the panel][lane]."""

    rows: Rows
    at: At
    first: Value
    count: Value
    accumulators: Pointer

    def row(self, number: Value) -> Pointer:
        """A row of the block as it is multiplied."""
        return self.rows.first.at(self.first + number, self.rows.stride)


# What to prefetch besides weights while a block is multiplied: the first address, and the bytes between those of
# two steps.  A block that is alone prefetches weights only.
LookAhead = Callable[[Block], tuple[Pointer, Value]]


@dataclass(frozen=True)
class Weights:
    """The weights of a matmul, and for a source that expands, the thread's memory for a unit of them."""

    layout: Panels
    source: Source
    expanded: Pointer | None

    @property
    def unit_steps(self) -> int:
        return self.source.unit_steps

    @property
    def units(self) -> int:
        return -(-self.layout.steps // self.unit_steps)

    def unit(self, call: Call, at: At, first: Value, steps: Value) -> Pointer:
        """Steps of a panel as the microkernel takes them."""
        if self.expanded is None:
            return self.source.stream(call, at, first)
        self.source.expand(call, at, first, steps, self.expanded)
        return self.expanded


def scratch_bytes(b: Builder, weights: Weights, chunk: int) -> int:
    """Bytes of accumulators that `panel_product` needs for chunks of at most so many rows."""
    rows = chunk if weights.units > 1 else tiling.most_rows(b.variant, weights.layout)
    return rows * _row_bytes(weights.layout)


def panel_product(
    call: Call,
    weights: Weights,
    rows: Rows,
    at: At,
    following: At,
    scratch: Pointer,
    *,
    look_ahead: LookAhead | None = None,
    before: Callable[[Block], None] | None = None,
    after: Callable[[Block], None],
) -> None:
    """All rows times the panel `at`; there must be at least one row.

    `following` is what is multiplied after this panel, and prefetched.  `look_ahead` says what else to prefetch.
    `before` is emitted where the last unit of a block begins, `after` where its sums are complete.  `scratch` has
    `scratch_bytes`.
    """
    b, layout, source = call.b, weights.layout, weights.source
    most = tiling.most_rows(b.variant, layout)
    unit, units = weights.unit_steps, weights.units
    blocks = (rows.count + (most - 1)) // most
    size, larger = rows.count // blocks, rows.count % blocks
    alone = blocks.equals(1)

    with b.for_(0, units) as part:
        begin = part.index * unit
        steps = b.minimum(b.index(layout.steps) - begin, unit)
        here = weights.unit(call, at, begin, steps)
        last = part.index.equals(units - 1)
        next_first = b.select(last, b.index(0), begin + steps)
        coming = Coming(following.pick(b, last, at), next_first, steps, following, part.index, units)
        with b.for_(0, blocks, carry=[b.index(0)]) as loop:
            first = loop.value
            count = size + b.convert(loop.index < larger, b.i64, signed=False)
            sums = scratch.at(first, _row_bytes(layout)) if units > 1 else scratch
            block = Block(rows, at, first, count, sums)
            if before is not None:
                with b.if_(last):
                    before(block)
            a = rows.first.at(first, rows.stride)
            ahead = source.ahead(call, coming, loop.index, blocks)
            other, other_step = look_ahead(block) if look_ahead else (block.accumulators, b.index(0))
            if ahead.second is not None and ahead.second_stride is not None:
                matters = alone if ahead.alone else b.constant(b.i1, 1)
                other = pick(b, matters, ahead.second, other)
                other_step = b.select(matters, ahead.second_stride, other_step)
            streams = (ahead.first, ahead.stride, other, other_step)
            arguments = (a.at(begin, layout.row_step_bytes), here, steps, block.accumulators, part.index > 0, *streams)
            _dispatch(b, layout, rows.stride, count, 1, most, arguments)
            with b.if_(last):
                after(block)
            loop.carry(first + count)


def _row_bytes(layout: Panels) -> int:
    return 4 * layout.lanes * layout.vectors


def _dispatch(
    b: Builder, layout: Panels, stride: int, count: Value, least: int, most: int, arguments: tuple[Value, ...]
) -> None:
    """Calls the kernel for `count` rows, least <= count <= most, by bisection."""
    if least == most:
        b.call(microkernel.kernel(b, layout, stride, least), *arguments)
        return
    middle = (least + most + 1) // 2

    def below() -> list[Value]:
        _dispatch(b, layout, stride, count, least, middle - 1, arguments)
        return []

    def above() -> list[Value]:
        _dispatch(b, layout, stride, count, middle, most, arguments)
        return []

    b.choose(count < middle, [], below, above)


def pick(b: Builder, condition: Value, then: Pointer, otherwise: Pointer) -> Pointer:
    """One of two addresses."""
    return Pointer(b.select(condition, then, otherwise).raw)
