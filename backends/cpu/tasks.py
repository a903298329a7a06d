"""Tasks of a grouped matmul: (expert, chunk of its rows, range of panels), numbered without being listed anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moec.backends.cpu import tiling
from moec.backends.cpu.builder import Builder
from moec.backends.cpu.frame import Call
from moec.backends.cpu.operands import Operands
from moec.backends.cpu.sources import Packed
from moec.backends.cpu.values import Pointer, Value


@dataclass(frozen=True)
class Task:
    """A task in five words of the stack."""

    b: Builder
    words: Pointer

    @staticmethod
    def on_stack(b: Builder) -> Task:
        return Task(b, b.scratch(40))

    def _load(self, word: int) -> Value:
        return (self.words + 8 * word).load(self.b.i64)

    @property
    def expert(self) -> Value:
        return self._load(0)

    @property
    def first_row(self) -> Value:
        return self._load(1)

    @property
    def rows(self) -> Value:
        return self._load(2)

    @property
    def first_panel(self) -> Value:
        return self._load(3)

    @property
    def end_panel(self) -> Value:
        return self._load(4)

    def set(self, *values: Value) -> None:
        for word, value in enumerate(values):
            (self.words + 8 * word).store(value)

    def become(self, other: Task) -> None:
        self.set(*(other._load(word) for word in range(5)))


class Tasks:
    """The tasks of a phase, which threads claim from two ends.

    Tasks are ordered by their expert's rows, most first, then by chunk and range of panels.  Experts of many rows are
    bound by arithmetic and those of few by memory; half of the threads begin at either end, so that both are busy.
    """

    def __init__(self, call: Call, operands: Operands, splits: Value, counter: int) -> None:
        b = call.b
        self.call, self.operands, self.splits = call, operands, splits
        self.counter = call.word(counter)
        self.cursor = b.scratch(16)
        self.cursor.store(b.index(0))
        (self.cursor + 8).store(b.index(0))
        self.from_end = (call.thread & 1).differs(0)
        self.count = self._count()

    def claim(self, into: Task) -> Value:
        """Claims a task and writes it to `into`; i1: whether there was one, else `into` keeps what it held."""
        b = self.call.b
        taken = self.counter.fetch_add(b.select(self.from_end, b.index(_END), 1))
        front, end = taken & (_END - 1), taken >> 32
        there = front + end < self.count
        with b.if_(there):
            self._find(b.select(self.from_end, end, front), into)
        return there

    def _count(self) -> Value:
        b, call, operands = self.call.b, self.call, self.operands
        with b.for_(0, operands.group_count(call), carry=[b.index(0)]) as loop:
            loop.carry(loop.value + _chunks(call, operands, loop.index))
        return loop.result * self.splits

    def _find(self, number: Value, into: Task) -> None:
        call, operands = self.call, self.operands
        b = call.b
        function = b.declare(f"find_{operands.name}", [b.ptr] * 3 + [b.i64] * 4 + [b.i1])
        if not function.operation.body.blocks:
            with b.define(function) as (base, cursor, found, at, cuts, thread, threads, from_end):
                _find(Call(b, call.frame, base, thread, threads), operands, cursor, found, at, cuts, from_end)
        arguments = (call.base, self.cursor, into.words, number, self.splits, call.thread, call.threads, self.from_end)
        b.call(function, *arguments)


_END = 1 << 32
"""What claiming from the end adds to the counter; claiming from the front adds 1."""


def _chunks(call: Call, operands: Operands, group: Value) -> Value:
    begin, end = operands.group(call, group)[1:]
    return (end - begin + (operands.chunk - 1)) // operands.chunk


def _find(
    call: Call, operands: Operands, cursor: Pointer, found: Pointer, number: Value, splits: Value, from_end: Value
) -> None:
    """Writes a task's words to `found`.

    `number` counts the tasks from the end that the thread takes them from.  `cursor` (two words, zero at first) holds
    a position in the order of groups and the number of its first task; the numbers asked for with one cursor ascend.
    """
    b, layout = call.b, operands.layout
    groups = operands.group_count(call)

    def group_at(position: Value) -> Value:
        return operands.by_size(call, b.select(from_end, groups - 1 - position, position))

    def beyond(position: Value, first: Value) -> Value:
        return number >= first + _chunks(call, operands, group_at(position)) * splits

    def advance(position: Value, first: Value) -> Sequence[Value]:
        return [position + 1, first + _chunks(call, operands, group_at(position)) * splits]

    position, first = b.while_([cursor.load(b.i64), (cursor + 8).load(b.i64)], beyond, advance)
    cursor.store(position)
    (cursor + 8).store(first)
    group = group_at(position)
    expert, begin, end = operands.group(call, group)
    count = _chunks(call, operands, group)
    inside = number - first
    inside = b.select(from_end, count * splits - 1 - inside, inside)
    chunk, split = inside // splits, inside % splits
    first_row = begin + (end - begin) * chunk // count
    last_row = begin + (end - begin) * (chunk + 1) // count
    side = tiling.side_by_side(b.variant, layout) if isinstance(operands.source, Packed) else 1

    def panel(number: Value) -> Value:
        """The first panel of a split; not in the midst of those that lie side by side, if splits have so many."""
        even = number * layout.panels // splits
        whole = b.select(number.equals(splits), even, even // side * side)
        return b.select(splits * side <= layout.panels, whole, even)

    first_panel, end_panel = panel(split), panel(split + 1)
    Task(b, found).set(expert, first_row, last_row - first_row, first_panel, end_panel)
