"""moe.grouped_matmul_combine: a task owns columns of every token.

It goes through all experts in ascending order and adds each row's contribution to the sum of the row's token, so sums
are formed in one order whatever the threads do, without atomic additions and without a copy of the rows in token order.
Where a token has one slot, its row is its sum, and is finished at once.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch_mlir import ir

from moec.backends.cpu import elementwise, swapped, tiling, waves
from moec.backends.cpu.epilogue import Place, read, real_lanes, store
from moec.backends.cpu.frame import FIRST_ROW, LAST_ROW, LINE, Call, Frame, Phase, Size, Storage
from moec.backends.cpu.operands import Operands, grouped
from moec.backends.cpu.product import Block, Rows, panel_product, panels_together, scratch_bytes, side_by_side
from moec.backends.cpu.sources import At
from moec.backends.cpu.values import Pointer, Value, byte_width


def grouped_matmul_combine(op: Any, frame: Frame) -> Sequence[Phase]:
    """Phases of `moe.grouped_matmul_combine`.  Raises Unsupported where weights are no parameters."""
    operands = grouped(op, frame)
    layout, plan = operands.layout, operands.plan
    out = frame.buffer(op.out)
    at_once = plan is not None and plan.slots_per_token == 1 and not plan.in_waves
    # f32 [panel][token][column of the panel]: what a task works on is contiguous.
    size = Size(fixed=LINE, per_token=4 * layout.panels * layout.panel_columns)
    sums = None if at_once else frame.workspace(size)
    counter = frame.counter()

    def emit(call: Call) -> None:
        _Combine(call, op, operands, out, sums, counter).emit()

    return [Phase("grouped_matmul_combine", emit, work=operands.flops_per_token)]


class _Combine:
    """The phase being emitted."""

    def __init__(self, call: Call, op: Any, operands: Operands, out: Storage, sums: int | None, counter: int) -> None:
        self.call, self.op, self.operands, self.out = call, op, operands, out
        self.b, self.layout = call.b, operands.layout
        self.sums_word, self.counter = sums, counter
        self.row_bytes = 4 * self.layout.panel_columns
        self.weights = operands.weights(call)

    def sums(self, panel: Value, token: Value) -> Pointer:
        """Where a token's sums are; where they are finished at once, the place of its result."""
        if self.sums_word is None:
            width = byte_width(self.out.element)
            return self.call.row(self.out, token).at(panel * self.layout.panel_columns, width)
        return self.call.pointer(self.sums_word).at(panel * self.call.tokens + token, self.row_bytes)

    def emit(self) -> None:
        b, call, layout = self.b, self.call, self.layout
        scratch = b.scratch(scratch_bytes(b, self.weights, self.operands.chunk))
        held = b.scratch(8)
        # Wide tasks first, so that rows are read few times; single panels last, so that threads end together.
        together = self.operands.source.together
        # Panels that are fetched together stay so.
        most, share = (together, 2) if together > 1 else (tiling.WIDE_PANELS, 4)
        fair = b.maximum(b.minimum(b.index(layout.panels) // (call.threads * share), most), 1)
        width = b.select(call.threads.equals(1), b.index(min(most, layout.panels)), fair)
        wide = b.index(layout.panels * 3 // 4) // width
        narrow = width if together > 1 else b.index(1)
        side = side_by_side(b, self.weights)
        if side > 1:
            few = call.tokens * self.operands.rows_per_token <= tiling.FEW_ROWS * self.operands.group_count(call)
            # Each task copies all rows again, where they are copied.
            one = 1 if self.operands.copied is None else 2
            narrow = b.minimum(b.select(few, b.index(side), one), width)
        tasks = wide + (b.index(layout.panels) - wide * width + (narrow - 1)) // narrow

        def first_panel(task: Value) -> Value:
            panel = b.select(task < wide, task * width, wide * width + (task - wide) * narrow)
            return b.minimum(panel, layout.panels)

        def run(task: Value) -> Sequence[Value]:
            following = call.word(self.counter).fetch_add(1)
            begin, end = first_panel(task), first_panel(task + 1)
            # Without a following task, its first weights stand for those of any: they are prefetched in vain.
            more = following < tasks
            after = b.select(more, first_panel(following), begin), b.select(more, first_panel(following + 1), end)
            if self.sums_word is None:
                self.experts(begin, end, after, scratch, held)
                self.finish_unchosen(begin, end)
                return [following]
            first, last = self.ends()
            with b.if_(first):
                self.clear(begin, end)
            self.experts(begin, end, after, scratch, held)
            with b.if_(last), b.for_(begin, end) as panel:
                self.finish(panel.index)
            return [following]

        b.while_([call.word(self.counter).fetch_add(1)], lambda task: task < tasks, run)

    def ends(self) -> tuple[Value, Value]:
        """i1: whether the wave at work is the first, the last."""
        b, plan = self.b, self.operands.plan
        if plan is None or not plan.in_waves:
            return b.constant(b.i1, 1), b.constant(b.i1, 1)
        rows = waves.row_count(self.call, plan.groups)
        return self.call.load_word(FIRST_ROW).equals(0), self.call.load_word(LAST_ROW) >= rows

    def clear(self, begin: Value, end: Value) -> None:
        b = self.b
        count = (end - begin) * self.call.tokens * self.row_bytes
        b.intrinsic("llvm.memset", None, self.sums(begin, b.index(0)), b.constant(b.i8, 0), count, b.constant(b.i1, 0))

    def experts(self, begin: Value, end: Value, after: tuple[Value, Value], scratch: Pointer, held: Pointer) -> None:
        """Adds up the contributions of every expert to the columns of panels [begin, end); those `after` come next."""
        b, call, operands = self.b, self.call, self.operands
        groups = operands.group_count(call)
        with b.for_(0, groups) as group:
            expert, first, end_row = operands.group(call, group.index)
            chunks = (end_row - first + (operands.chunk - 1)) // operands.chunk
            is_last_group = group.index.equals(groups - 1)
            next_expert, next_row, next_end = operands.group(call, b.select(is_last_group, b.index(0), group.index + 1))
            width, next_width = self.together(end_row - first), self.together(next_end - next_row)
            last_begin, last_end = (b.select(is_last_group, *pair) for pair in zip(after, (begin, end), strict=True))
            behind = self.panels(next_expert, last_begin, last_end, next_width)
            again = self.panels(expert, begin, end, width)
            with b.for_(0, chunks) as chunk:
                row = first + (end_row - first) * chunk.index // chunks
                count = first + (end_row - first) * (chunk.index + 1) // chunks - row
                held.store(b.index(-1))
                rows = operands.rows(call, row, count, held)
                transposed = operands.transposed(call, rows)
                then = behind.pick(b, chunk.index.equals(chunks - 1), again)
                with b.for_(begin, end, width) as panel:
                    at = self.panels(expert, panel.index, end, width)
                    behind_these = panel.index + at.panels
                    following = then.pick(b, behind_these >= end, self.panels(expert, behind_these, end, width))

                    # Rows that lie where they are read are next to come in the order in which they lie.
                    def next_rows(block: Block, rows: Rows = rows) -> tuple[Pointer, Value]:
                        line = b.select(block.at.panel.equals(begin), b.index(LINE), 0)
                        return rows.first.at(block.first + block.count, rows.stride), line

                    def before(block: Block, row: Value = row) -> None:
                        self.prefetch_sums(block.at.panel, row + block.first, block.count)

                    def add(block: Block, row: Value = row) -> None:
                        self.add(row + block.first, block)

                    def expanded(rows: Rows = rows, at: At = at, following: At = following) -> None:
                        panel_product(
                            call, self.weights, rows, at, following, scratch,
                            look_ahead=next_rows if operands.copied is None else None, before=before, after=add,
                        )  # fmt: skip

                    swapped.either(call, transposed, at, following, expanded, before=before, after=add)

    def together(self, rows: Value) -> Value:
        """How many panels are multiplied together by an expert's rows."""
        return panels_together(self.b, self.weights, self.b.minimum(rows, self.operands.chunk))

    def panels(self, expert: Value, first: Value, end: Value, width: Value) -> At:
        """Panels from `first` on, `width` of them if there are."""
        return At(expert, first, self.b.minimum(end - first, width))

    def prefetch_sums(self, panel: Value, first: Value, count: Value) -> None:
        with self.b.for_(0, count, unroll=False) as loop:
            token = self.operands.slot_and_token(self.call, first + loop.index)[1]
            place = self.sums(panel, token)
            for byte in range(0, self.row_bytes, LINE):
                (place + byte).prefetch()

    def add(self, first: Value, block: Block) -> None:
        """Adds what a block's rows contribute to the sums of their tokens."""
        b, call, layout = self.b, self.call, self.layout
        expert, panel = block.at.expert, block.at.panel
        with b.for_(0, block.count, unroll=False) as loop:
            row = first + loop.index
            slot, token = self.operands.slot_and_token(call, row)
            for group in range(layout.groups):
                column = panel * layout.panel_columns + group * layout.lanes
                real = real_lanes(b, call.frame, layout.columns, column)
                place = Place(row, expert, token, slot, column, real)

                def emit(group: int = group, place: Place = place) -> None:
                    sums = self.operands.sums(call, block, loop.index, group)
                    self.add_one(panel, group, place, sums)

                # Nothing is read beyond the matrix: what the caller brought may end there.
                self.operands.within(b, column, group, emit)

    def add_one(self, panel: Value, group: int, place: Place, sums: list[Value]) -> None:
        """Adds what a row contributes to the sums of its token in a group of columns."""
        value = self.evaluate(self.op.epilogue, sums, place)
        if self.sums_word is None:
            self.finish_one(panel, place.token, group, partial(operator.add, self.b.constant(value.type, 0.0), value))
            return
        align = 4 * self.layout.lanes
        target = self.sums(panel, place.token) + align * group
        target.store(target.load(value.type, align=align) + value, align=align)

    def finish(self, panel: Value) -> None:
        """Stores what `finish` makes of the sums of a panel's columns."""
        b, call, layout = self.b, self.call, self.layout
        vector = b.vec(layout.lanes, b.f32)
        with b.for_(0, call.tokens, unroll=False) as loop:
            token = loop.index
            for group in range(layout.groups):
                place = self.sums(panel, token) + 4 * layout.lanes * group
                self.finish_one(panel, token, group, partial(place.load, vector, align=4 * layout.lanes))

    def finish_unchosen(self, begin: Value, end: Value) -> None:
        """Stores what `finish` makes of 0, for the tokens without a row."""
        b, call, layout = self.b, self.call, self.layout
        zero = b.constant(b.vec(layout.lanes, b.f32), 0.0)
        index = call.frame.storage(self.op.offsets.owner.operation.operands[0])
        with b.for_(0, call.tokens, unroll=False) as loop:
            token = loop.index
            chosen = call.row(index, token).load(b.i32).unsigned_below(layout.experts)
            with b.if_(~chosen), b.for_(begin, end) as panel:
                for group in range(layout.groups):
                    self.finish_one(panel.index, token, group, lambda: zero)

    def finish_one(self, panel: Value, token: Value, group: int, total: Callable[[], Value]) -> None:
        """Stores what `finish` makes of a token's sums in a group of columns."""
        b, call, layout = self.b, self.call, self.layout
        column = panel * layout.panel_columns + group * layout.lanes

        def emit() -> None:
            real = real_lanes(b, call.frame, layout.columns, column)
            place = Place(token, b.index(0), token, token, column, real)
            store(call, self.out, place, token, self.evaluate(self.op.finish, [total()], place))

        self.operands.within(b, column, group, emit)

    def evaluate(self, region: ir.Region, arguments: list[Value], place: Place) -> Value:
        (value,) = elementwise.evaluate(
            self.b, region, arguments, self.layout.lanes, lambda op: read(self.call, op, place, self.layout.lanes)
        )
        return value
