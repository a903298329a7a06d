"""What matmuls read: packed weights, and the rows of each expert as the microkernel takes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch_mlir import ir

from moec.backends.base import unsupported
from moec.backends.cpu import packing, tiling, waves
from moec.backends.cpu.builder import Builder
from moec.backends.cpu.frame import Call, Frame, Size, Storage, align_up, copy_bytes
from moec.backends.cpu.layout import Arithmetic, Panels
from moec.backends.cpu.plain import plain
from moec.backends.cpu.product import Block, Rows, Weights
from moec.backends.cpu.sources import Packed, Source
from moec.backends.cpu.values import Pointer, Value, byte_width


@dataclass(frozen=True)
class Plan:
    """Where the plan of a grouped matmul lies."""

    groups: int
    slots: Storage
    slots_per_token: int
    gather: bool
    in_waves: bool


@dataclass(frozen=True)
class Operands:
    """The operands of one matmul, planned."""

    name: str
    layout: Panels
    source: Source
    expanded: int | None
    """The word of the threads' memory for a unit of expanded weights; None: they are multiplied where they lie."""
    lhs: Storage
    plan: Plan | None
    """None: one expert has every token."""
    copied: int | None
    """The word of the threads' buffers for copied rows; None: rows are multiplied where they lie."""
    stride: int
    chunk: int

    @property
    def rows_per_token(self) -> int:
        return self.plan.slots_per_token if self.plan else 1

    @property
    def flops_per_token(self) -> int:
        layout = self.layout
        return 2 * self.rows_per_token * layout.operands * layout.columns * layout.inner

    # --- weights and accumulators

    def weights(self, call: Call) -> Weights:
        expanded = call.own(self.expanded, _unit_bytes(self.layout, self.source)) if self.expanded is not None else None
        return Weights(self.layout, self.source, expanded)

    def sums(self, b: Builder, block: Block, row: Value, group: int) -> list[Value]:
        """The accumulators of every weights operand, for a row of a block and a column group of the panel."""
        layout = self.layout
        vector, width = b.vec(layout.lanes, b.f32), 4 * layout.lanes
        first = block.accumulators.at(row, width * layout.vectors) + group * layout.operands * width
        return [(first + n * width).load(vector, align=width) for n in range(layout.operands)]

    def within(self, b: Builder, column: Value, group: int, emit: Callable[[], None]) -> None:
        """`emit` for a column group, at run time only if it begins within the matrix."""
        layout = self.layout
        if group and layout.columns % layout.panel_columns:
            with b.if_(column < layout.columns):
                emit()
        else:
            emit()

    # --- groups and rows

    def group_count(self, call: Call) -> Value:
        b = call.b
        if self.plan is None:
            return b.convert(call.tokens > 0, b.i64, signed=False)
        return b.convert(call.pointer(self.plan.groups).load(b.i32), b.i64)

    def group(self, call: Call, number: Value) -> tuple[Value, Value, Value]:
        """(expert, first row, row after the last) of a group, all i64; of the wave at work."""
        b = call.b
        if self.plan is None:
            return b.index(0), b.index(0), call.tokens
        entry = call.pointer(self.plan.groups).at(number, 12) + 4
        expert, begin, end = (b.convert((entry + 4 * n).load(b.i32), b.i64) for n in range(3))
        if self.plan.in_waves:
            begin, end = waves.clip(b, call, begin, end)
        return expert, begin, end

    def slot_and_token(self, call: Call, row: Value) -> tuple[Value, Value]:
        if self.plan is None:
            return row, row
        slot = call.b.convert(call.row(self.plan.slots, row).load(call.b.i32), call.b.i64)
        return slot, slot // self.plan.slots_per_token

    def rows(self, call: Call, first: Value, count: Value, held: Pointer) -> Rows:
        """Rows [first, first + count) of a group; copied into the thread's buffer unless `held` says they are there.

        `held` is a word that holds the first row of what the buffer holds, or -1.
        """
        b = call.b
        if self.copied is None:
            return Rows(call.row(self.lhs, first), self.stride, count)
        buffer = call.own(self.copied, self.chunk * self.stride)
        with b.if_(held.load(b.i64).differs(first)):
            held.store(first)
            with b.for_(0, count) as loop:
                row = first + loop.index
                source = self.slot_and_token(call, row)[1] if self.plan and self.plan.gather else row
                _copy_row(b, self.layout, call.row(self.lhs, source), self.lhs, buffer.at(loop.index, self.stride))
        return Rows(buffer, self.stride, count)


def dense(op: Any, frame: Frame) -> Operands:
    """The operands of a `moe.matmul`."""
    return _operands(op, frame, None)


def grouped(op: Any, frame: Frame) -> Operands:
    """The operands of a `moe.grouped_matmul` or `moe.grouped_matmul_combine`."""
    if op.offsets not in frame.groups:
        raise unsupported("cpu", op, "its offsets must be those of a moe.plan")
    per_token = ir.IntegerAttr(op.slots_per_token).value
    gather = bool(ir.IntegerAttr(op.gather).value)
    in_waves = op.offsets in frame.windows
    return _operands(op, frame, Plan(frame.groups[op.offsets], frame.storage(op.slots), per_token, gather, in_waves))


def _operands(op: Any, frame: Frame, plan: Plan | None) -> Operands:
    weights = list(op.weights)
    type_ = ir.RankedTensorType(weights[0].type)
    experts, columns, inner = (int(type_.get_dim_size(axis)) for axis in ((0, 2, 1) if op.transposed else range(3)))
    lhs = frame.storage(op.lhs)
    kinds = {str(lhs.element), *(str(ir.RankedTensorType(w.type).element_type) for w in weights)}
    if not kinds <= {"f32", "bf16"} or len({str(w.type) for w in weights}) != 1:
        raise unsupported("cpu", op, f"it multiplies f32 and bf16, and all its weights are of one type, not {kinds}")
    layout = tiling.panels(
        frame.variant, str(lhs.element), str(type_.element_type), len(weights), experts, columns, inner
    )
    source: Source
    if frame.plain:
        if layout.arithmetic is Arithmetic.WIDENED:  # expanding widens, too
            layout = replace(layout, arithmetic=Arithmetic.F32)
        source, name = plain(weights, layout, type_.element_type, op.transposed), f"{frame.words}"
    elif op.transposed:
        raise unsupported("cpu", op, "packed weights are not multiplied transposed")
    else:
        packed = frame.packed((tuple(weights), layout), lambda: packing.region(op, weights, layout))
        source, name = Packed(layout, packed), f"{packed}"
    # Rows are multiplied where they lie if they are of the right type and whole steps, and do not all begin in the same
    # set of the first-level cache.
    row_element = "bf16" if layout.arithmetic is Arithmetic.PAIRS else "f32"
    in_place = (
        not (plan and plan.gather)
        and str(lhs.element) == row_element
        and inner % layout.elements_per_step == 0
        and lhs.stride % 4096 != 0
    )
    stride = lhs.stride if in_place else layout.row_stride()
    chunk = tiling.chunk_rows(stride, tiling.most_rows(frame.variant, layout))
    copied = None if in_place else frame.workspace(Size(per_thread=chunk * stride))
    expanded = frame.workspace(Size(per_thread=_unit_bytes(layout, source))) if source.expands else None
    return Operands(f"{frame.name}{name}_{stride}", layout, source, expanded, lhs, plan, copied, stride, chunk)


def _unit_bytes(layout: Panels, source: Source) -> int:
    """Bytes of a unit of expanded weights, whole lines."""
    return align_up(align_up(source.unit_steps, layout.lanes) * layout.step_bytes)


def _copy_row(b: Builder, layout: Panels, source: Pointer, lhs: Storage, to: Pointer) -> None:
    """One row as the microkernel takes it, padded with zeros to whole steps."""
    inner, lanes = layout.inner, layout.lanes
    if layout.arithmetic is Arithmetic.PAIRS or str(lhs.element) == "f32":
        width = byte_width(lhs.element)
        copy_bytes(b, to, source, inner * width)
        if inner % layout.elements_per_step:
            (to + inner * width).store(b.constant(b.i16, 0))
        return
    whole = inner // lanes * lanes
    with b.for_(0, whole, lanes) as loop:
        to.at(loop.index, 4).store(b.convert(source.at(loop.index, 2).load(b.vec(lanes, b.bf16)), b.f32))
    with b.for_(whole, inner) as loop:
        to.at(loop.index, 4).store(b.convert(source.at(loop.index, 2).load(b.bf16), b.f32))
