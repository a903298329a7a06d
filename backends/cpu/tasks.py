"""Tasks of a grouped matmul: (expert, chunk of its rows, range of panels), numbered without being listed anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moec.backends.cpu.builder import Builder
from moec.backends.cpu.frame import Call
from moec.backends.cpu.operands import Operands
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


def find(call: Call, operands: Operands, cursor: Pointer, splits: Value, number: Value, into: Task) -> Value:
    """Writes task `number` to `into`; i1: whether there is one, else `into` keeps what it held.

    Tasks are ordered by group, chunk and range of panels.  `cursor` (two words, zero at first) remembers a group and
    the number of its first task; the numbers that are asked for with one cursor must ascend.
    """
    b = call.b
    function = b.declare(f"find_{operands.name}", [b.ptr] * 3 + [b.i64] * 4, b.i1)
    if not function.operation.body.blocks:
        with b.define(function) as (base, state, found, at, cuts, thread, threads):
            _find(Call(b, call.frame, base, thread, threads), operands, state, found, at, cuts)
    return b.result(function, call.base, cursor, into.words, number, splits, call.thread, call.threads)


def _find(call: Call, operands: Operands, state: Pointer, found: Pointer, number: Value, splits: Value) -> None:
    b, layout = call.b, operands.layout
    groups = operands.group_count(call)

    def chunks(group: Value) -> Value:
        begin, end = operands.group(call, group)[1:]
        return (end - begin + (operands.chunk - 1)) // operands.chunk

    def beyond(group: Value, first: Value) -> Value:
        is_group = group < groups
        within = b.select(is_group, group, b.index(0))
        return is_group & (number >= first + chunks(within) * splits)

    def advance(group: Value, first: Value) -> Sequence[Value]:
        return [group + 1, first + chunks(group) * splits]

    group, first = b.while_([state.load(b.i64), (state + 8).load(b.i64)], beyond, advance)
    state.store(group)
    (state + 8).store(first)
    there = group < groups
    with b.if_(there):
        expert, begin, end = operands.group(call, group)
        chunk, split = (number - first) // splits, (number - first) % splits
        count = chunks(group)
        first_row = begin + (end - begin) * chunk // count
        last_row = begin + (end - begin) * (chunk + 1) // count
        first_panel = split * layout.panels // splits
        end_panel = (split + 1) * layout.panels // splits
        Task(b, found).set(expert, first_row, last_row - first_row, first_panel, end_panel)
    b.return_(there)
