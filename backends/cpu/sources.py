"""Where a matmul takes its weights from: what `panel_product` asks a source for.

The microkernel multiplies steps of a panel that lie in the order of `Panels`.  Packed weights lie so in memory.  Other
weights are *expanded*: before its blocks of rows, a unit (some steps of one panel) is written in that order into memory
of the thread, where it stays in the caches until the last block has been multiplied by it.  What is prefetched while a
block is multiplied are the bytes of the source, never what they become.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from moec.backends.cpu import tiling
from moec.backends.cpu.builder import Builder
from moec.backends.cpu.frame import ADDRESS, LINE, Call
from moec.backends.cpu.layout import Panels
from moec.backends.cpu.values import Pointer, Value


@dataclass(frozen=True)
class At:
    """Panels of an expert, `panels` of them from number `panel` on, which share units; all i64."""

    expert: Value
    panel: Value
    panels: Value

    def pick(self, b: Builder, condition: Value, otherwise: At) -> At:
        """These panels if the condition (i1) holds, else others."""
        mine, others = (self.expert, self.panel, self.panels), (otherwise.expert, otherwise.panel, otherwise.panels)
        return At(*(b.select(condition, one, other) for one, other in zip(mine, others, strict=True)))


@dataclass(frozen=True)
class Coming:
    """What is multiplied after the unit at work: `next_steps` steps of the panel `at`, from `first` on.

    The unit at work is number `unit` of the `units` of its panel and has `steps` steps; `panel` comes after its panel.
    """

    at: At
    first: Value
    next_steps: Value
    steps: Value
    panel: At
    unit: Value
    units: int

    def share(self, parts: Value) -> Value:
        """Steps of the next unit for each of `parts` (i64) of the work; the last ones may get fewer, or none."""
        return (self.next_steps + (parts - 1)) // parts


@dataclass(frozen=True)
class Streams:
    """What a block prefetches at each of its steps: the weight lines of a step at `first`, which moves on by `stride`,
    and perhaps a line at `second`: always, or if it is `needed` (i1)."""

    first: Pointer
    stride: Value
    second: Pointer | None = None
    second_stride: Value | None = None
    needed: Value | None = None
    pace: Value | None = None
    run: Value | None = None
    """Both: see microkernel.kernel; None: streams move on at every step."""


@dataclass(frozen=True)
class Lines:
    """`count` lines (i64): runs of 2**`run` lines, which begin `stride` bytes apart (all i64)."""

    first: Pointer
    stride: Value
    run: Value
    count: Value

    def prefetch(self, b: Builder) -> None:
        in_run = (b.index(1) << self.run) - 1
        with b.for_(0, self.count) as loop:
            at = self.first + (loop.index >> self.run) * self.stride
            at.at(loop.index & in_run, LINE).prefetch()


class Source(Protocol):
    """The weights of a matmul, panel by panel."""

    @property
    def unit_steps(self) -> int:
        """Steps of a unit, at most."""

    @property
    def chunk(self) -> tiling.Chunk:
        """How many rows to multiply by all panels of a task before the next ones."""

    @property
    def together(self) -> int:
        """How many panels share units, at most."""

    def ahead(self, call: Call, coming: Coming, block: Value, blocks: Value) -> Streams:
        """The share of a block in prefetching the bytes of what comes: number `block` of `blocks` (both i64), counting
        a block once for each of the panels that are together."""


class Expanding(Source, Protocol):
    """Weights that lie otherwise; a unit of them is written into memory of each thread."""

    def lines(self, call: Call, coming: Coming, block: Value, blocks: Value) -> Sequence[Lines]:
        """The same as `ahead`, for a block whose kernel prefetches nothing itself."""

    @property
    def early(self) -> bool:
        """Whether a unit is expanded while the one before is multiplied, a share of it behind each panel."""

    @property
    def part_bytes(self) -> int:
        """Bytes that one panel takes of an expanded unit: whole lines, and whole squares of vectors."""

    def expand(self, call: Call, at: At, first: Value, steps: Value, to: Pointer) -> None:
        """Writes `steps` steps of panels from step `first` on to `to`, in the order of `Panels`, each panel
        `part_bytes` behind the one before.

        `to` is aligned to 64 bytes and has room for a unit.  Columns and elements beyond the matrix must become zeros.
        """


class InPlace(Source, ABC):
    """A source whose weights are multiplied where they lie."""

    @property
    def row_bytes(self) -> int | None:
        """Bytes between elements of the inner dimension, where weights lie as tensor<ExKxN>; None: they are packed."""
        return None

    @property
    def part_bytes(self) -> int:
        """Bytes between the first steps of neighbouring panels that share units."""
        return 0

    @abstractmethod
    def stream(self, call: Call, at: At, step: Value) -> Pointer:
        """Where the steps of the first of some panels lie, from `step` (i64) on."""


@dataclass(frozen=True)
class Packed(InPlace):
    """Packed weights at an offset of the packed parameters, or where the `table` at another says of each expert."""

    layout: Panels
    offset: int
    table: int | None = None

    @property
    def unit_steps(self) -> int:
        return tiling.unit_steps(self.layout)

    @property
    def chunk(self) -> tiling.Chunk:
        return tiling.PACKED_CHUNK

    @property
    def together(self) -> int:
        return 1

    def stream(self, call: Call, at: At, step: Value) -> Pointer:
        layout = self.layout
        if self.table is None:
            whole = call.packed(self.offset).at(at.expert, layout.expert_bytes)
        else:
            whole = call.packed(0) + call.packed(self.table).at(at.expert, ADDRESS).load(call.b.i64)
        return whole.at(at.panel, layout.panel_bytes).at(step, layout.step_bytes)

    def ahead(self, call: Call, coming: Coming, block: Value, blocks: Value) -> Streams:
        """An equal part for each block.  A block that is alone has to prefetch all lines of a step at each step."""
        step, spread = self.layout.step_bytes, tiling.steps_at_once(call.b.variant, self.layout) > 1
        stride = (blocks + ((LINE if spread else step) - 1)) // blocks
        share = coming.steps * step // blocks
        first = self.stream(call, coming.at, coming.first)
        if spread:
            return Streams(first + share * block // tiling.SPREAD, stride)
        first = first + share * block
        lines = self.layout.prefetched_lines * LINE
        if step <= lines:
            return Streams(first, stride)
        return Streams(first, stride, first + lines, stride, needed=blocks.equals(1))


Multiplied = InPlace | Expanding
