"""Tasks of a weight gradient: (expert, panels of b, strips of a), numbered without being listed anywhere.

A task has all rows of its expert, so that no sum is shared.  Experts are cut into as many panels as fit into the
second-level cache, and into strips so that no task is much longer than others: an expert with most of the rows becomes
many tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moec.backends.cpu import waves
from moec.backends.cpu.builder import Builder
from moec.backends.cpu.frame import Call
from moec.backends.cpu.outer_layout import CHUNK_ROWS, PARTIAL_STRIPS, Outer
from moec.backends.cpu.values import Pointer, Value

TASKS_PER_THREAD = 32
"""As in tiling.py: threads end within one task of each other."""


@dataclass(frozen=True)
class Groups:
    """The experts that have rows; `word` holds them as `Frame.groups` says, None: one expert has all tokens."""

    word: int | None

    def count(self, call: Call) -> Value:
        if self.word is None:
            return call.b.convert(call.tokens > 0, call.b.i64, signed=False)
        return waves.group_count(call, self.word)

    def group(self, call: Call, number: Value) -> tuple[Value, Value, Value]:
        """(expert, first row, row after the last), all i64."""
        b = call.b
        if self.word is None:
            return b.index(0), b.index(0), call.tokens
        entry = call.pointer(self.word).at(number, 12) + 4
        expert, begin, end = (b.convert((entry + 4 * n).load(b.i32), b.i64) for n in range(3))
        return expert, begin, end

    def rows(self, call: Call) -> Value:
        """Of all experts together."""
        return call.tokens if self.word is None else waves.row_count(call, self.word)


@dataclass(frozen=True)
class Task:
    """A task in words of the stack."""

    b: Builder
    words: Pointer
    FIELDS = ("expert", "first_row", "end_row", "first_panel", "end_panel", "first_strip", "end_strip")

    @staticmethod
    def on_stack(b: Builder) -> Task:
        return Task(b, b.scratch(8 * len(Task.FIELDS)))

    def __getitem__(self, field: str) -> Value:
        return (self.words + 8 * self.FIELDS.index(field)).load(self.b.i64)

    def set(self, *values: Value) -> None:
        for word, value in enumerate(values):
            (self.words + 8 * word).store(value)


@dataclass(frozen=True)
class Cut:
    """How the rows of an expert, and its tiles, are cut."""

    chunks: Value
    chunk_rows: Value
    """Of all chunks but the last: whole steps."""
    ranges: Value
    """Of panels."""
    splits: Value
    """Of strips."""


def chunks(b: Builder, shape: Outer, rows: Value) -> tuple[Value, Value]:
    """How many chunks of rows, and rows of each but the last."""
    per_step = shape.rows_per_step
    count = (rows + (CHUNK_ROWS - 1)) // CHUNK_ROWS
    each = (rows + (count - 1)) // count
    return count, (each + (per_step - 1)) // per_step * per_step


def cut(b: Builder, shape: Outer, rows: Value, all_rows: Value, threads: Value) -> Cut:
    """The cut of an expert with `rows` > 0."""
    count, each = chunks(b, shape, rows)
    steps = (each + (shape.rows_per_step - 1)) // shape.rows_per_step
    waits = count > 1
    panels = b.maximum(b.index(shape.panels_most) // (steps * shape.panel_step_bytes), 1)
    panels = b.select(waits, b.minimum(panels, shape.partial_panels), panels)
    ranges = (b.index(shape.panels) + (panels - 1)) // panels
    wanted = (rows * threads * TASKS_PER_THREAD + (all_rows * ranges - 1)) // (all_rows * ranges)
    fewest = b.select(waits, b.index(-(-shape.strips // PARTIAL_STRIPS)), 1)
    splits = b.minimum(b.maximum(wanted, fewest), shape.strips)
    return Cut(count, each, ranges, b.select(threads.equals(1), fewest, splits))


def find(call: Call, shape: Outer, groups: Groups, cursor: Pointer, number: Value, into: Task) -> Value:
    """Writes task `number` to `into`; i1: whether there is one.

    `cursor` (two words, zero at first) remembers a group and the number of its first task; the numbers that are asked
    for with one cursor must ascend.
    """
    b = call.b
    total = groups.rows(call)
    count = groups.count(call)

    def of(group: Value) -> tuple[Value, Value, Value, Cut]:
        expert, begin, end = groups.group(call, group)
        return expert, begin, end, cut(b, shape, end - begin, total, call.threads)

    def beyond(group: Value, first: Value) -> Value:
        def here() -> Sequence[Value]:
            found = of(group)[3]
            return [number >= first + found.ranges * found.splits]

        return b.choose(group < count, [b.i1], here, lambda: [b.constant(b.i1, 0)])[0]

    def advance(group: Value, first: Value) -> Sequence[Value]:
        found = of(group)[3]
        return [group + 1, first + found.ranges * found.splits]

    group, first = b.while_([cursor.load(b.i64), (cursor + 8).load(b.i64)], beyond, advance)
    cursor.store(group)
    (cursor + 8).store(first)
    there = group < count
    with b.if_(there):
        expert, begin, end, found = of(group)
        range_, split = (number - first) // found.splits, (number - first) % found.splits
        panels = [n * shape.panels // found.ranges for n in (range_, range_ + 1)]
        strips = [n * shape.strips // found.splits for n in (split, split + 1)]
        into.set(expert, begin, end, *panels, *strips)
    return there
