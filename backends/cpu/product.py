"""A chunk of rows times one panel: balanced blocks of rows, units of steps, and what to prefetch meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from moec.backends.cpu import microkernel, tiling
from moec.backends.cpu.builder import Builder, Function
from moec.backends.cpu.frame import LINE, Call
from moec.backends.cpu.layout import Panels
from moec.backends.cpu.sources import At, Coming, Expanding, InPlace, Multiplied, Packed
from moec.backends.cpu.values import Pointer, Value


@dataclass(frozen=True)
class Rows:
    """Rows as the microkernel takes them: 4 bytes a step, `stride` bytes apart."""

    first: Pointer
    stride: int
    count: Value


@dataclass(frozen=True)
class Block:
    """A block of the chunk's rows, [first, first + count), and its accumulators: [row][vector of the panel][lane].

    `at` is the one panel that it is multiplied by.
    """

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
    """The weights of a matmul, and where they are expanded, the thread's memory for a unit of them."""

    layout: Panels
    source: Multiplied
    expanded: Pointer | None
    """Room for a unit, or for two and a word each in front of which unit is there, where units are expanded early."""
    decoded: Weights | None = None
    """The same, for many rows, where these are multiplied by codes that have been decoded."""

    @property
    def unit_steps(self) -> int:
        return self.source.unit_steps

    @property
    def units(self) -> int:
        return -(-self.layout.steps // self.unit_steps)

    def unit(self, call: Call, at: At, part: Value, first: Value, steps: Value) -> Pointer:
        """Steps of a panel, unit number `part`, as the microkernel takes them."""
        b, source = call.b, self.source
        if isinstance(source, InPlace):
            return source.stream(call, at, first)
        memory = self._memory
        if not source.early:
            source.expand(call, at, first, steps, memory)
            return memory
        here = self._room(source, memory.load(b.i64))
        with b.if_((memory + 8).load(b.i64).differs(self._key(at, part))):
            source.expand(call, at, first, steps, here)
        return here

    def part(self, unit: Pointer, number: Value) -> Pointer:
        """The part of a unit that belongs to panel number `number` of those that are together."""
        return unit if self.source.together == 1 else unit.at(number, self.source.part_bytes)

    def begin(self, b: Builder) -> None:
        """Before the first unit."""
        if expands_early(self.source):
            self._memory.store(b.index(0))
            (self._memory + 8).store(b.index(-1))

    def expand_share(self, call: Call, coming: Coming, panel: Value, panels: Value) -> None:
        """Behind the last block of a panel, number `panel` of the `panels` at work: its share of the unit that comes,
        beside the one at work."""
        b, source = call.b, self.source
        if isinstance(source, InPlace) or not source.early:
            return
        other = self._room(source, self._memory.load(b.i64) ^ 1)
        share = coming.share(panels)
        begin = b.minimum(share * panel, coming.next_steps)
        steps = b.minimum(coming.next_steps - begin, share)
        with b.if_(steps > 0):
            source.expand(call, coming.at, coming.first + begin, steps, other.at(begin, self.layout.step_bytes))

    def turn(self, b: Builder, coming: Coming, part: Value) -> None:
        """The unit that was expanded early, number `part` of its panel, is the next one at work."""
        if expands_early(self.source):
            memory = self._memory
            memory.store(memory.load(b.i64) ^ 1)
            (memory + 8).store(self._key(coming.at, part))

    def _key(self, at: At, part: Value) -> Value:
        count = self.source.together + 1
        return ((at.expert * self.layout.panels + at.panel) * count + at.panels) * self.units + part

    @property
    def _memory(self) -> Pointer:
        if self.expanded is None:
            raise TypeError("weights that are multiplied where they lie are not expanded")
        return self.expanded

    def _room(self, source: Expanding, number: Value) -> Pointer:
        """One of the two units that are expanded in turns."""
        return (self._memory + LINE).at(number, source.together * source.part_bytes)


def expands_early(source: Multiplied) -> bool:
    """Whether a unit is expanded while the one before is multiplied."""
    return not isinstance(source, InPlace) and source.early


def expanded_bytes(source: Expanding) -> int:
    """Bytes of `Weights.expanded`."""
    unit = source.together * source.part_bytes
    return 2 * unit + LINE if source.early else unit


def scratch_bytes(b: Builder, weights: Weights, chunk: int) -> int:
    """Bytes of accumulators that `panel_product` needs for chunks of at most so many rows."""
    if weights.decoded is not None:
        others = replace(weights, decoded=None)
        return max(scratch_bytes(b, one, chunk) for one in (weights.decoded, others))
    side = side_by_side(b, weights)
    few = tiling.FEW_ROWS * side * _row_bytes(weights.layout) if side > 1 else 0
    if weights.units == 1:
        return max(few, tiling.most_rows(b.variant, weights.layout) * _row_bytes(weights.layout))
    one = max(few, chunk * _row_bytes(weights.layout))
    return one if weights.source.together == 1 else max(one, tiling.SUMS_BYTES)


def side_by_side(b: Builder, weights: Weights) -> int:
    """Panels that few rows are multiplied by at once."""
    return tiling.side_by_side(b.variant, weights.layout) if isinstance(weights.source, Packed) else 1


def panels_together(b: Builder, weights: Weights, rows: Value) -> Value:
    """How many panels are multiplied together by a chunk of so many rows."""
    together = weights.source.together
    side = side_by_side(b, weights)
    if side > 1:
        return b.select(rows <= tiling.FEW_ROWS, b.index(side), 1)
    if together == 1:
        return b.index(1)
    fit = b.index(tiling.SUMS_BYTES // _row_bytes(weights.layout)) // b.maximum(rows, 1)
    return b.minimum(b.maximum(fit, 1), together)


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
    """All rows times the panels `at`; there must be at least one row.

    `following` is what is multiplied after these, and prefetched.  `look_ahead` says what else to prefetch.
    `before` is emitted where the last unit of a block begins, `after` where its sums are complete.  `scratch` has
    `scratch_bytes`.
    """
    if weights.decoded is not None:
        b = call.b
        many = rows.count >= tiling.decoded_rows(b.variant, weights.layout)
        for condition, which in ((~many, replace(weights, decoded=None)), (many, weights.decoded)):
            with b.if_(condition):
                panel_product(
                    call, which, rows, at, following, scratch, look_ahead=look_ahead, before=before, after=after
                )
        return
    b, layout, source = call.b, weights.layout, weights.source
    most = tiling.most_rows(b.variant, layout)
    unit, units = weights.unit_steps, weights.units
    blocks = (rows.count + (most - 1)) // most
    size, larger = rows.count // blocks, rows.count % blocks
    shares = blocks * at.panels
    row_bytes = source.row_bytes if isinstance(source, InPlace) else None
    paced = row_bytes is not None or expands_early(source)
    still = None if isinstance(source, InPlace) or not tiling.prefetches_between(b.variant) else source
    at_once = tiling.steps_at_once(b.variant, layout) if isinstance(source, Packed) else 1
    kernel = partial(
        microkernel.kernel,
        b,
        layout,
        rows.stride,
        paced=paced and still is None,
        weights_row=row_bytes,
        at_once=at_once if still is None else tiling.STILL_STEPS,
        prefetches=still is None,
    )
    side = side_by_side(b, weights)
    with b.for_(0, units) as part:
        begin = part.index * unit
        steps = b.minimum(b.index(layout.steps) - begin, unit)
        here = weights.unit(call, at, part.index, begin, steps)
        last = part.index.equals(units - 1)
        next_first = b.select(last, b.index(0), begin + steps)
        next_steps = b.minimum(b.index(layout.steps) - next_first, unit)
        coming = Coming(following.pick(b, last, at), next_first, next_steps, steps, following, part.index, units)
        with b.for_(0, at.panels) as panel, b.for_(0, blocks, carry=[b.index(0)]) as loop:
            first, share = loop.value, panel.index * blocks + loop.index
            count = size + b.convert(loop.index < larger, b.i64, signed=False)
            place = panel.index * rows.count + first
            if units == 1 and side > 1:
                place = panel.index * rows.count  # one block of few rows, or one panel
            sums = scratch.at(place, _row_bytes(layout)) if units > 1 or side > 1 else scratch
            block = Block(rows, At(at.expert, at.panel + panel.index, b.index(1)), first, count, sums)
            if before is not None:
                with b.if_(last):
                    before(block)
            a = rows.first.at(first, rows.stride)
            if still is not None:
                for lines in still.lines(call, coming, share, shares):
                    lines.prefetch(b)
                streams: tuple[Value | Pointer, ...] = (b.null, b.index(0), b.null, b.index(0), b.index(0), b.index(0))
            else:
                streams = _streams(call, source, coming, share, shares, look_ahead(block) if look_ahead else None, sums)
            weights_ = here.at(panel.index, layout.panel_bytes) if side > 1 else weights.part(here, panel.index)
            arguments = (a.at(begin, layout.row_step_bytes), weights_, steps, sums, part.index > 0, *streams)
            if side == 1:
                _dispatch(b, kernel, count, 1, most, arguments)
            else:
                _beside(b, kernel, at.panels.equals(side), panel.index, count, most, side, arguments)
            if expands_early(source):
                # Not a part of it behind each block: a call waits for its first lines, whatever it expands.
                with b.if_(loop.index.equals(blocks - 1)):
                    weights.expand_share(call, coming, panel.index, at.panels)
            with b.if_(last):
                after(block)
            loop.carry(first + count)
        weights.turn(b, coming, b.select(last, b.index(0), part.index + 1))


def _streams(
    call: Call, source: Multiplied, coming: Coming, share: Value, shares: Value,
    look_ahead: tuple[Pointer, Value] | None, anything: Pointer,
) -> tuple[Value | Pointer, ...]:  # fmt: skip
    """What a kernel prefetches, as its arguments say it; where that is one stream only, `anything` is the other."""
    b = call.b
    ahead = source.ahead(call, coming, share, shares)
    other, other_step = look_ahead or (anything, b.index(0))
    pace = b.index(microkernel.PACE) if ahead.pace is None else ahead.pace
    run = b.index(0) if ahead.run is None else ahead.run
    other_step = other_step << run
    if ahead.second is not None and ahead.second_stride is not None:
        needed = b.constant(b.i1, 1) if ahead.needed is None else ahead.needed
        other = pick(b, needed, ahead.second, other)
        other_step = b.select(needed, ahead.second_stride, other_step)
    return (ahead.first, ahead.stride, other, other_step, pace, run)


def _row_bytes(layout: Panels) -> int:
    return 4 * layout.lanes * layout.vectors


def _dispatch(
    b: Builder, kernel: Callable[[int], Function], count: Value, least: int, most: int, arguments: tuple[Value, ...]
) -> None:
    """Calls the kernel for `count` rows, least <= count <= most, by bisection."""
    if least == most:
        b.call(kernel(least), *arguments)
        return
    middle = (least + most + 1) // 2

    def below() -> list[Value]:
        _dispatch(b, kernel, count, least, middle - 1, arguments)
        return []

    def above() -> list[Value]:
        _dispatch(b, kernel, count, middle, most, arguments)
        return []

    b.choose(count < middle, [], below, above)


def _beside(
    b: Builder,
    kernel: Callable[..., Function],
    few: Value,
    panel: Value,
    count: Value,
    most: int,
    side: int,
    arguments: tuple[Value, ...],
) -> None:
    """Calls the kernel for `count` rows: of few, with the first of `side` panels for all of them."""

    def all_panels() -> list[Value]:
        with b.if_(panel.equals(0)):
            _dispatch(
                b, partial(kernel, panels=side, prefetches=False), count, 1, min(tiling.FEW_ROWS, most), arguments
            )
        return []

    def one_panel() -> list[Value]:
        _dispatch(b, kernel, count, 1, most, arguments)
        return []

    b.choose(few, [], all_panels, one_panel)


def pick(b: Builder, condition: Value, then: Pointer, otherwise: Pointer) -> Pointer:
    """One of two addresses."""
    return Pointer(b.select(condition, then, otherwise).raw)
