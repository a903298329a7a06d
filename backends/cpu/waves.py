"""Waves: a layer's rows are worked on a part at a time, so that what lies between two matmuls stays small.

An expert's hidden rows can be wider than its tokens (Mixtral: 3.5 times).  All of them at once would take several times
the memory of the tokens and leave the caches.  So a layer whose hidden rows would break the bound runs its matmuls in
waves, each over some rows of the plan: whole experts where they fit, else a part of one.  The sums of tokens go on from
wave to wave in the same order of rows, so a result has the same bits as in one wave.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch_mlir import ir

from moec.backends.cpu.builder import Builder
from moec.backends.cpu.frame import FIRST_ROW, LAST_ROW, Call, Frame, Window, row_stride
from moec.backends.cpu.values import Pointer, Value, byte_width

WORKING_MEMORY = 1.4
"""Bytes that sums and hidden rows together may take, as a multiple of the tokens' own permuted rows.  Below 2, which is
promised, because threads have buffers of their own, too."""

MATMULS = ("moe.grouped_matmul", "moe.grouped_matmul_combine")

FEWEST_ROWS = 32
LEAST_SHARE = 1 / 8
"""A wave has at least so many rows, and this share of them all: short waves read experts again that they cut."""


@dataclass(frozen=True)
class Wave:
    """The loop around the phases of one chain of matmuls."""

    window: Window
    groups: int
    counters: tuple[int, ...]

    @staticmethod
    def of(frame: Frame, offsets: ir.Value, before: Wave | None, counters: Sequence[int]) -> Wave:
        """The waves of a plan; `counters` of another matmul join those `before`."""
        known = before.counters if before else ()
        return Wave(frame.windows[offsets], frame.groups[offsets], (*known, *counters))

    def loop(self, call: Call, barrier: Callable[[], None], phases: Callable[[], None]) -> None:
        """Emits `phases` once a wave.  Thread 0 moves the window; a barrier stands on both sides of that."""
        b = call.b

        def body(first: Value, _: Value) -> Sequence[Value]:
            with b.if_(call.thread.equals(0)):
                self._move(call, first)
            barrier()
            last = call.load_word(LAST_ROW)
            phases()
            barrier()
            return [last, last < row_count(call, self.groups)]

        b.while_([b.index(0), b.constant(b.i1, 1)], lambda first, more: more, body)

    def _move(self, call: Call, first: Value) -> None:
        b = call.b
        call.word(FIRST_ROW).store(first)
        call.word(LAST_ROW).store(self._end(call, first))
        for counter in self.counters:
            call.word(counter).store(b.index(0))

    def _end(self, call: Call, first: Value) -> Value:
        """Where the wave that begins at `first` ends: behind the last expert that fits, else within one."""
        b = call.b
        furthest = b.minimum(first + self.window.rows(b, call.tokens), row_count(call, self.groups))
        with b.for_(0, group_count(call, self.groups), carry=[first]) as loop:
            end = _group_end(call, self.groups, loop.index)
            loop.carry(b.select(end > furthest, loop.value, b.maximum(loop.value, end)))
        (whole,) = loop.results
        return b.select(whole > first, whole, furthest)


def row_count(call: Call, groups: int) -> Value:
    """All rows of the plan whose groups the word `groups` holds: where its last group ends."""
    b, count = call.b, group_count(call, groups)
    last = _group_end(call, groups, b.maximum(count - 1, 0))
    return b.select(count > 0, last, 0)


def group_count(call: Call, groups: int) -> Value:
    """How many experts have rows."""
    return call.b.convert(call.pointer(groups).load(call.b.i32), call.b.i64)


def _group_end(call: Call, groups: int, group: Value) -> Value:
    entry: Pointer = call.pointer(groups).at(group, 12) + 12
    return call.b.convert(entry.load(call.b.i32), call.b.i64)


def clip(b: Builder, call: Call, begin: Value, end: Value) -> tuple[Value, Value]:
    """The rows of [begin, end) that belong to the wave at work; none is an empty range."""
    first = b.maximum(begin, call.load_word(FIRST_ROW))
    return first, b.maximum(first, b.minimum(end, call.load_word(LAST_ROW)))


def plan_of(operation: ir.Operation) -> ir.Value | None:
    """The offsets of the plan in whose rows an operation works; None for one that works on tokens."""
    if operation.name in MATMULS:
        return operation.opview.offsets
    if operation.name == "moe.quantize_rows" and not isinstance(operation.operands[0].owner, ir.Block):
        return plan_of(operation.operands[0].owner.operation)
    return None


def plan_windows(operations: Sequence[Any], frame: Frame) -> dict[Any, Window]:
    """The window of every plan (by its offsets) whose matmuls need waves."""
    chains: dict[ir.Value, list[Any]] = {}
    for op in operations:
        offsets = plan_of(op.operation)
        if offsets is not None:
            chains.setdefault(offsets, []).append(op)
    found = {}
    for offsets, chain in chains.items():
        window = _window(chain) if _is_chain(chain, operations) else None
        if window is not None:
            found[offsets] = window
    return found


def _is_chain(chain: Sequence[Any], operations: Sequence[Any]) -> bool:
    """Whether the kernels stand together, only the last one combines, and nobody else reads what lies between."""
    names = [op.operation.name for op in chain]
    if names[-1] != "moe.grouped_matmul_combine" or "moe.grouped_matmul_combine" in names[:-1]:
        return False
    kernels = [op.operation for op in operations if op.operation.name.startswith("moe.") and not _folded(op)]
    first = kernels.index(chain[0].operation)
    together = kernels[first : first + len(chain)] == [op.operation for op in chain]
    inside = {op.operation for op in chain}
    users = [use.owner.operation for op in chain[:-1] for out in op.operation.results for use in out.uses]
    return together and all(user in inside or user.parent in inside for user in users)


def _window(chain: Sequence[Any]) -> Window | None:
    """The window that keeps the chain within its memory; None where all rows at once do."""
    per_token = ir.IntegerAttr(chain[0].slots_per_token).value
    permuted = per_token * _row_bytes(_unquantised(chain[0].lhs))
    sums = 4 * ir.RankedTensorType(chain[-1].out.type).shape[1]
    results = [out for op in chain[:-1] for out in op.operation.results]
    hidden = sum(row_stride(_held_bytes(out)) for out in results)
    if not hidden or sums + per_token * hidden <= WORKING_MEMORY * permuted:
        return None
    rows = max((WORKING_MEMORY * permuted - sums) / hidden, LEAST_SHARE * per_token)
    return Window(FEWEST_ROWS, int(rows * Window.UNIT))


def _folded(op: Any) -> bool:
    return op.operation.name in ("moe.quantize", "moe.dequantize")


def _is_quantised(value: ir.Value) -> bool:
    return not isinstance(value.owner, ir.Block) and value.owner.operation.name == "moe.quantize_rows"


def _unquantised(value: ir.Value) -> ir.Value:
    """What rows of integers are made from; their type is f32, whatever they take in memory."""
    return value.owner.operation.operands[0] if _is_quantised(value) else value


def _held_bytes(value: ir.Value) -> int:
    """Bytes of a row as it lies in memory."""
    if _is_quantised(value):
        return int(ir.RankedTensorType(value.type).shape[1])
    return _row_bytes(value)


def _row_bytes(value: ir.Value) -> int:
    type_ = ir.RankedTensorType(value.type)
    return int(type_.shape[1]) * byte_width(type_.element_type)
