"""moe.plan: sorts slots by expert, by counting or, up to `direct_max_tokens`, by insertion.

Counting takes three passes: one counts, one turns counts into offsets, one scatters.  All are serial: 16384 slots took
21 us on a Zen 5 core, less than a thousandth of the matmuls of such a layer.  Insertion touches nothing but the slots
of the few tokens, so that its time does not depend on how many experts there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch_mlir import ir

from moec.backends.cpu.fetch import fetch
from moec.backends.cpu.frame import Call, Frame, Phase, Size
from moec.backends.cpu.values import Pointer, Value

_SIZES = 64


def plan(op: Any, frame: Frame) -> Sequence[Phase]:
    """Storage of the results: offsets tensor<(E+1)xi32>; slots tensor<?xi32> without gaps, T*K entries reserved.

    Also makes the list of experts that have rows, see `Frame.groups`, and has their weights read if they lie on disk.
    An expert number beyond the last is an error (the slot is left out); a negative one marks an empty slot.
    """
    experts = ir.IntegerAttr(op.experts).value
    index = frame.storage(op.index)
    per_token = index.columns
    offsets = frame.buffer(op.offsets)
    slots = frame.buffer(op.slots, rows_per_token=per_token)
    cursors = frame.workspace(Size(fixed=4 * experts))
    groups = frame.workspace(Size(fixed=4 + 12 * experts))
    order = frame.workspace(Size(fixed=4 * experts))
    frame.groups[op.offsets], frame.orders[op.offsets] = groups, order
    code = frame.error("RangeError", f"the number of an expert is not below {experts}")
    if frame.paged:
        frame.fetched[op.offsets] = []

    def each_slot(call: Call, body: Callable[[Value, Value], None]) -> None:
        """`body` for the number (i64) and the expert (i32) of every flat slot."""
        b, numbers = call.b, call.address(index)
        with b.for_(0, call.tokens) as token:
            row = numbers.at(token.index, index.stride)
            with b.for_(0, per_token, unroll=True) as slot:
                body(token.index * per_token + slot.index, row.at(slot.index, 4).load(b.i32))

    def count_all(call: Call) -> None:
        b = call.b
        one = b.constant(b.i32, 1)
        cells = call.pointer(cursors)
        b.intrinsic("llvm.memset", None, cells, b.constant(b.i8, 0), b.index(4 * experts), b.constant(b.i1, 0))

        def count(slot: Value, expert: Value) -> None:
            with b.if_(expert.unsigned_below(experts)):
                cell = cells.at(b.convert(expert, b.i64), 4)
                cell.store(cell.load(b.i32) + one)
            with b.if_(expert >= experts):
                call.fail(code)

        each_slot(call, count)
        _offsets(call, experts, cells, call.address(offsets), call.pointer(groups))
        _order(call, call.pointer(groups), call.pointer(order))
        sorted_slots = call.address(slots)

        def scatter(slot: Value, expert: Value) -> None:
            with b.if_(expert.unsigned_below(experts)):
                cell = cells.at(b.convert(expert, b.i64), 4)
                place = cell.load(b.i32)
                sorted_slots.at(b.convert(place, b.i64), 4).store(b.convert(slot, b.i32))
                cell.store(place + one)

        each_slot(call, scatter)

    def phase(sort: Callable[[Call], None]) -> Phase:
        def emit(call: Call) -> None:
            sort(call)
            if frame.paged:
                fetch(call, op.offsets)

        return Phase("plan", emit, work=16 * per_token, serial=True)

    direct = ir.IntegerAttr(op.direct_max_tokens).value if _only_matmuls_read(op.offsets) else 0
    if not direct:
        return [phase(count_all)]
    keys = frame.workspace(Size(fixed=4 * direct * per_token))

    def either(call: Call) -> None:
        b = call.b

        def few() -> Sequence[Value]:
            _insert(call, each_slot, experts, code, call.pointer(keys), call.address(slots), call.pointer(groups))
            _order(call, call.pointer(groups), call.pointer(order))
            return []

        def many() -> Sequence[Value]:
            count_all(call)
            return []

        b.choose(call.tokens <= direct, [], few, many)

    return [phase(either)]


def _only_matmuls_read(offsets: ir.Value) -> bool:
    """Whether nobody needs the offsets themselves: matmuls go by the groups."""
    return all(use.owner.operation.name.startswith("moe.grouped_matmul") for use in offsets.uses)


def _insert(
    call: Call,
    each_slot: Callable[[Call, Callable[[Value, Value], None]], None],
    experts: int,
    code: int,
    keys: Pointer,
    slots: Pointer,
    groups: Pointer,
) -> None:
    """Writes slots and groups by inserting each slot behind those of the same or a lower expert; `keys` are experts."""
    b = call.b
    filled = b.scratch(8)
    filled.store(b.index(0))

    def insert(slot: Value, expert: Value) -> None:
        with b.if_(expert >= experts):
            call.fail(code)
        with b.if_(expert.unsigned_below(experts)):
            count = filled.load(b.i64)

            def above(place: Value) -> Value:
                below = b.maximum(place - 1, 0)
                return (place > 0) & (keys.at(below, 4).load(b.i32) > expert)

            def move(place: Value) -> Sequence[Value]:
                keys.at(place, 4).store(keys.at(place - 1, 4).load(b.i32))
                slots.at(place, 4).store(slots.at(place - 1, 4).load(b.i32))
                return [place - 1]

            (place,) = b.while_([count], above, move)
            keys.at(place, 4).store(expert)
            slots.at(place, 4).store(b.convert(slot, b.i32))
            filled.store(count + 1)

    each_slot(call, insert)
    none = b.constant(b.i32, -1)
    with b.for_(0, filled.load(b.i64), carry=[b.index(-1), none]) as loop:
        group, before = loop.values
        expert = keys.at(loop.index, 4).load(b.i32)
        opens = expert.differs(before)
        group = group + b.convert(opens, b.i64, signed=False)
        entry = groups.at(group, 12) + 4
        with b.if_(opens):
            entry.store(expert)
            (entry + 4).store(b.convert(loop.index, b.i32))
        (entry + 8).store(b.convert(loop.index + 1, b.i32))
        loop.carry(group, expert)
    groups.store(b.convert(loop.results[0] + 1, b.i32))


def _offsets(call: Call, experts: int, cells: Pointer, ends: Pointer, groups: Pointer) -> None:
    """Turns the counts in `cells` into first rows, and writes the offsets and the groups."""
    b = call.b
    start = [b.constant(b.i32, 0), b.index(0)]
    with b.for_(0, experts, carry=start) as loop:
        begin, group = loop.values
        cell = cells.at(loop.index, 4)
        count = cell.load(b.i32)
        end = begin + count
        cell.store(begin)
        ends.at(loop.index, 4).store(begin)
        entry = groups.at(group, 12) + 4
        entry.store(b.convert(loop.index, b.i32))
        (entry + 4).store(begin)
        (entry + 8).store(end)
        loop.carry(end, group + b.convert(count > 0, b.i64, signed=False))
    rows, found = loop.results
    (ends + 4 * experts).store(rows)
    groups.store(b.convert(found, b.i32))


def _order(call: Call, groups: Pointer, order: Pointer) -> None:
    """Writes the numbers of the groups to `order`, those of most rows first; at _SIZES - 1 rows they count as equal."""
    b = call.b
    one = b.constant(b.i32, 1)
    cells = b.scratch(4 * _SIZES)
    b.intrinsic("llvm.memset", None, cells, b.constant(b.i8, 0), b.index(4 * _SIZES), b.constant(b.i1, 0))
    count = b.convert(groups.load(b.i32), b.i64)

    def cell_of(group: Value) -> Pointer:
        entry = groups.at(group, 12) + 8
        rows = (entry + 4).load(b.i32) - entry.load(b.i32)
        return cells.at(b.index(_SIZES - 1) - b.convert(b.minimum(rows, _SIZES - 1), b.i64), 4)

    with b.for_(0, count) as loop:
        cell = cell_of(loop.index)
        cell.store(cell.load(b.i32) + one)
    with b.for_(0, _SIZES, carry=[b.constant(b.i32, 0)]) as loop:
        cell = cells.at(loop.index, 4)
        here = cell.load(b.i32)
        cell.store(loop.value)
        loop.carry(loop.value + here)
    with b.for_(0, count) as loop:
        cell = cell_of(loop.index)
        place = cell.load(b.i32)
        order.at(b.convert(place, b.i64), 4).store(b.convert(loop.index, b.i32))
        cell.store(place + one)
