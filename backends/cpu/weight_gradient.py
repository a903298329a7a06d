"""moe.weight_gradient: threads claim tasks, each some tiles of the gradient of one expert over all its rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch_mlir import ir

from moec.backends.base import unsupported
from moec.backends.cpu import outer_kernel
from moec.backends.cpu.builder import Builder, Loop
from moec.backends.cpu.frame import LINE, Call, Frame, Phase, Size, Storage, copy_bytes
from moec.backends.cpu.layout import FLOATS
from moec.backends.cpu.outer_copy import Factor, copy_panels, copy_strip
from moec.backends.cpu.outer_layout import GROUP_BYTES, STRIP_BLOCKS, VECTORS, Outer, outer
from moec.backends.cpu.outer_tasks import Groups, Task, chunks, find
from moec.backends.cpu.values import Pointer, Value, byte_width


def weight_gradient(op: Any, frame: Frame) -> Sequence[Phase]:
    """Phases of `moe.weight_gradient`."""
    if op.offsets not in frame.groups:
        raise unsupported("cpu", op, "its offsets must be those of a moe.plan")
    per_token = ir.IntegerAttr(op.slots_per_token).value
    slots = frame.storage(op.slots)
    a, b = (
        Factor(frame.storage(operand), slots if ir.IntegerAttr(gathered).value else None, per_token)
        for operand, gathered in ((op.a, op.gather_a), (op.b, op.gather_b))
    )
    return [_phase(op, frame, Groups(frame.groups[op.offsets]), a, b)]


def dense_weight_gradient(op: Any, frame: Frame) -> Sequence[Phase]:
    """Phases of `moe.dense_weight_gradient`."""
    a, b = (Factor(frame.storage(operand), None, 1) for operand in (op.a, op.b))
    return [_phase(op, frame, Groups(None), a, b)]


def _phase(op: Any, frame: Frame, groups: Groups, a: Factor, b: Factor) -> Phase:
    type_ = ir.RankedTensorType(op.out.type)
    kinds = [str(a.storage.element), str(b.storage.element), str(type_.element_type)]
    if not set(kinds) <= FLOATS:
        raise unsupported("cpu", op, f"it multiplies f32, bf16 and f16, not {kinds}")
    of_a, of_b, of_out = kinds
    shape = outer(frame.variant, of_a, of_b, of_out, *(type_.get_dim_size(axis) for axis in range(3)))
    gradient = _Gradient(frame, shape, groups, a, b, frame.buffer(op.out))
    work = 2 * a.slots_per_token * shape.rows * shape.columns
    return Phase(op.operation.name.removeprefix("moe."), gradient.emit, work=work)


class _Gradient:
    """One gradient, planned."""

    def __init__(self, frame: Frame, shape: Outer, groups: Groups, a: Factor, b: Factor, out: Storage) -> None:
        self.shape, self.groups, self.a, self.b, self.out = shape, groups, a, b, out
        self.counter = frame.counter()
        self.strip = frame.workspace(Size(per_thread=shape.strip_bytes))
        self.panels = frame.workspace(Size(per_thread=shape.panels_bytes))
        self.sums = frame.workspace(Size(per_thread=shape.sums_bytes))

    def emit(self, call: Call) -> None:
        b = call.b
        self.clear(call)
        cursor, task = b.scratch(16), Task.on_stack(b)
        cursor.store(b.index(0))
        (cursor + 8).store(b.index(0))

        def claim() -> Value:
            return find(call, self.shape, self.groups, cursor, call.word(self.counter).fetch_add(1), task)

        def run(_: Value) -> Sequence[Value]:
            self.run(call, task)
            return [claim()]

        b.while_([claim()], lambda found: found, run)
        if outer_kernel.streams(self.shape, self.out.element):
            b.fence()

    def clear(self, call: Call) -> None:
        """Zeros for experts without rows: those between two groups, before the first and behind the last."""
        b, shape = call.b, self.shape
        groups = self.groups.count(call)
        bytes_ = shape.rows * shape.columns * byte_width(self.out.element)

        def expert(group: Value) -> Value:
            return self.groups.group(call, group)[0]

        with b.for_(call.thread, groups + 1, call.threads) as gap:
            n = gap.index
            begin = b.choose(n > 0, [b.i64], lambda: [expert(n - 1) + 1], lambda: [b.index(0)])[0]
            end = b.choose(n < groups, [b.i64], lambda: [expert(n)], lambda: [b.index(shape.experts)])[0]
            with b.for_(begin, end) as loop:
                zero = b.constant(b.i8, 0), b.index(bytes_), b.constant(b.i1, 0)
                b.intrinsic("llvm.memset", None, call.row(self.out, loop.index), *zero)

    def run(self, call: Call, task: Task) -> None:
        b, shape = call.b, self.shape
        first, end = task["first_row"], task["end_row"]
        count, each = chunks(b, shape, end - first)
        strip, panels = call.own(self.strip, shape.strip_bytes), call.own(self.panels, shape.panels_bytes)
        sums = call.own(self.sums, shape.sums_bytes)
        result = call.row(self.out, task["expert"])
        with b.for_(0, count) as chunk:
            row = first + chunk.index * each
            rows = b.minimum(end - row, each)
            steps = (rows + (shape.rows_per_step - 1)) // shape.rows_per_step
            stride = shape.panel_stride(b, steps)
            copy_panels(call, shape, self.b, row, rows, task["first_panel"], task["end_panel"], panels, stride)
            with b.for_(task["first_strip"], task["end_strip"]) as loop:
                begin = loop.index * STRIP_BLOCKS
                column = self._column(b, begin)
                copy_strip(call, shape, self.a, row, rows, column, strip)
                first_panel, end_panel = task["first_panel"], task["end_panel"]

                def tiles(begin: Value, end: Value, loop: Loop = loop, column: Value = column) -> None:
                    """Of the strip by panels [begin, end)."""
                    first_block = loop.index * STRIP_BLOCKS
                    with b.for_(first_block, b.minimum(first_block + STRIP_BLOCKS, shape.blocks)) as block:
                        at = (block.index - task["first_strip"] * STRIP_BLOCKS) * shape.partial_panels
                        tile = _Tile(
                            block=block.index,
                            column=self._column(b, block.index),
                            left=strip.at(self._column(b, block.index) - column, 4),
                            steps=steps,
                            # Only of several chunks do all sums wait at once.
                            sums=sums.at(b.select(count > 1, at, 0), shape.tile_bytes),
                            goes_on=chunk.index > 0,
                            ends=chunk.index.equals(count - 1),
                        )
                        with b.for_(begin, end) as panel:
                            n = panel.index - first_panel
                            own = tile.sums.at(b.select(count > 1, n, panel.index & 1), shape.tile_bytes)
                            beside = b.select((panel.index & 1).equals(0), panel.index + 1 < end_panel, n > 0)
                            self._tile(call, tile, own, panel.index, beside, panels + n * stride, result)

                if b.variant.short_steps:
                    most = b.maximum(b.index(GROUP_BYTES) // (steps * (2 * shape.panel_step_bytes)), 1) * 2
                    with b.for_(first_panel & -2, end_panel, most) as group:
                        tiles(b.maximum(group.index, first_panel), b.minimum(group.index + most, end_panel))
                else:
                    tiles(first_panel, end_panel)

    def _column(self, b: Builder, block: Value) -> Value:
        """The first column of a of a block."""
        return block * self.shape.block_size + b.minimum(block, self.shape.larger_blocks)

    def _tile(
        self, call: Call, tile: _Tile, sums: Pointer, panel: Value, beside: Value, right: Pointer, result: Pointer
    ) -> None:
        """`beside` (i1): the panel with which this one shares lines, if it does, is at work, too."""
        b, shape, element = call.b, self.shape, self.out.element
        width = byte_width(element)
        place = result.at(tile.column * shape.columns + panel * shape.panel_columns, width)
        into = b.index(outer_kernel.RESULT)
        if outer_kernel.streams(shape, element):
            aligned = (b.integer(result) & (LINE - 1)).equals(0)
            streamed = b.index(outer_kernel.STREAMED)
            if shape.panel_columns * width < LINE:
                streamed = b.select((panel & 1).equals(0), b.index(outer_kernel.HELD), streamed)
                aligned = aligned & beside
            into = b.select(aligned, streamed, into)
        whole = panel < shape.columns // shape.panel_columns
        mode = b.select(tile.ends & whole, into, outer_kernel.SUMS)

        def multiply(columns: int) -> Callable[[], list[Value]]:
            def call_kernel() -> list[Value]:
                function = outer_kernel.kernel(b, shape, element, columns)
                b.call(function, tile.left, right, tile.steps, sums, tile.goes_on, place, mode)
                return []

            return call_kernel

        larger = tile.block < shape.larger_blocks
        if shape.larger_blocks:
            b.choose(larger, [], multiply(shape.block_size + 1), multiply(shape.block_size))
        else:
            multiply(shape.block_size)()
        if shape.columns % shape.panel_columns:
            with b.if_(tile.ends & ~whole):
                columns = b.convert(larger, b.i64, signed=False) + shape.block_size
                self._part(b, sums, columns, place)

    def _part(self, b: Builder, sums: Pointer, columns: Value, place: Pointer) -> None:
        """Stores a tile of the last panel, of which only some columns are real."""
        shape, element = self.shape, self.out.element
        width, real = byte_width(element), shape.columns % shape.panel_columns
        line = b.scratch(shape.panel_columns * width)
        with b.for_(0, columns) as loop:
            row = sums.at(loop.index, shape.panel_step_bytes)
            vectors = [(row + n * shape.vector_bytes).load(b.vec(shape.lanes, b.f32)) for n in range(VECTORS)]
            at = line
            for value in outer_kernel.rounded(b, shape, element, vectors):
                at.store(value)
                at = at + value.lanes * byte_width(value.element)
            copy_bytes(b, place + loop.index * (shape.columns * width), line, real * width)


@dataclass(frozen=True)
class _Tile:
    """A block of columns of a for the chunk of rows at hand."""

    block: Value
    column: Value
    left: Pointer
    steps: Value
    sums: Pointer
    goes_on: Value
    """i1: there were rows before these."""
    ends: Value
    """i1: these are the last."""
