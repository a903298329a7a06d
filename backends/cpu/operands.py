"""What matmuls read: packed weights, and the rows of each expert as the microkernel takes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch_mlir import ir

from moec.backends.base import unsupported
from moec.backends.cpu import code_packing, decode, packing, tiling, waves
from moec.backends.cpu.builder import Builder
from moec.backends.cpu.codes import CodePanels
from moec.backends.cpu.decoded import Decoded
from moec.backends.cpu.frame import Call, Frame, Region, Size, Storage
from moec.backends.cpu.in_rows import in_rows
from moec.backends.cpu.joined import Joined, beside, join, joined_layouts, whole_layout
from moec.backends.cpu.layout import FLOATS, Arithmetic, Panels
from moec.backends.cpu.lhs import copy_row, lies_ready
from moec.backends.cpu.plain import Columns, plain
from moec.backends.cpu.plain import Rows as Held
from moec.backends.cpu.product import Block, Rows, Weights, expanded_bytes
from moec.backends.cpu.sources import InPlace, Multiplied, Packed
from moec.backends.cpu.swapped import Swapped, Transposed, most_vectors, transposed
from moec.backends.cpu.swapped import memory as swapped_memory
from moec.backends.cpu.values import Pointer, Value
from moec.dialect.formats import FORMATS, format_of


@dataclass(frozen=True)
class Plan:
    """Where the plan of a grouped matmul lies."""

    groups: int
    order: int
    slots: Storage
    slots_per_token: int
    gather: bool
    in_waves: bool


@dataclass(frozen=True)
class Operands:
    """The operands of one matmul, planned."""

    name: str
    layout: Panels
    source: Multiplied
    expanded: int | None
    """The word of the threads' memory for a unit of expanded weights; None: they are multiplied where they lie."""
    lhs: tuple[Storage, ...]
    """The rows, or the parts that stand beside each other in them."""
    parts: tuple[Panels, ...]
    """The layout for each of them."""
    plan: Plan | None
    """None: one expert has every token."""
    copied: int | None
    """The word of the threads' buffers for copied rows; None: rows are multiplied where they lie."""
    stride: int
    chunk: int
    swapped: Swapped | None
    decoded: tuple[Decoded, int] | None = None
    """Codes that are decoded once for many rows, and the word of the threads' memory for a unit of them."""

    @property
    def rows_per_token(self) -> int:
        return self.plan.slots_per_token if self.plan else 1

    @property
    def flops_per_token(self) -> int:
        layout = self.layout
        return 2 * self.rows_per_token * layout.operands * layout.columns * layout.inner

    # --- weights and accumulators

    def weights(self, call: Call) -> Weights:
        """Called once in a phase, at its beginning."""
        memory = None
        if self.expanded is not None and not isinstance(self.source, InPlace):
            memory = call.own(self.expanded, expanded_bytes(self.source))
        made = Weights(self.layout, self.source, memory, self._decoded(call))
        made.begin(call.b)
        return made

    def _decoded(self, call: Call) -> Weights | None:
        if self.decoded is None:
            return None
        source, word = self.decoded
        return Weights(source.layout, source, call.own(word, expanded_bytes(source)))

    def sums(self, call: Call, block: Block, row: Value, group: int) -> list[Value]:
        """The complete sums of every weights operand, f32, for a row of a block and a column group of the panel."""
        b, layout = call.b, self.layout
        integers = isinstance(layout, CodePanels) and layout.integer_totals
        vector, width = b.vec(layout.lanes, b.i32 if integers else b.f32), 4 * layout.lanes
        first = block.accumulators.at(row, width * layout.vectors) + group * layout.operands * width
        sums = [(first + n * width).load(vector, align=width) for n in range(layout.operands)]
        if isinstance(layout, CodePanels) and isinstance(self.source, Packed):
            panel = self.source.stream(call, block.at, b.index(0))
            return decode.finish(b, layout, sums, group, panel, block.row(row))
        return sums

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

    def by_size(self, call: Call, position: Value) -> Value:
        """The number of the group at `position` in the order of descending rows."""
        if self.plan is None:
            return position
        return call.b.convert(call.pointer(self.plan.order).at(position, 4).load(call.b.i32), call.b.i64)

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
            return Rows(call.row(self.lhs[0], first), self.stride, count)
        buffer = call.own(self.copied, _rows_size(self.chunk, self.stride, self.rows_per_token))

        def source(part: Storage, row: Value) -> Pointer:
            gathered = self.plan is not None and self.plan.gather
            return call.row(part, self.slot_and_token(call, row)[1] if gathered else row)

        with b.if_(held.load(b.i64).differs(first)):
            held.store(first)
            last = first + (count - 1)
            with b.for_(0, count) as loop:
                row = first + loop.index
                later, to = b.minimum(row + tiling.ROWS_AHEAD, last), buffer.at(loop.index, self.stride)
                for part, layout in zip(self.lhs, self.parts, strict=True):
                    copy_row(b, layout, source(part, row), part.element, to, source(part, later))
                    to = to + layout.row_bytes
        return Rows(buffer, self.stride, count)

    def transposed(self, call: Call, rows: Rows) -> Transposed | None:
        """A chunk of rows for the product with swapped operands; None where there is none."""
        return None if self.swapped is None else transposed(call, self.swapped, rows)


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
    groups, order = frame.groups[op.offsets], frame.orders[op.offsets]
    made = _operands(op, frame, Plan(groups, order, frame.storage(op.slots), per_token, gather, in_waves))
    if op.offsets in frame.fetched and isinstance(made.source, Packed):
        frame.fetched[op.offsets].append(made.source)
    return made


def layout_of(op: Any, frame: Frame) -> Panels:
    """How the weights of a matmul are packed.  Raises Unsupported for what cannot be multiplied."""
    weights = list(op.weights)
    type_ = ir.RankedTensorType(weights[0].type)
    shape = [int(type_.get_dim_size(axis)) for axis in ((0, 2, 1) if op.transposed else range(3))]
    format_ = format_of(weights[0])
    rows = "i8" if _quantised(op.lhs) else str(ir.RankedTensorType(op.lhs.type).element_type)
    if op.transposed and not frame.plain:
        raise unsupported("cpu", op, "packed weights are not multiplied transposed")
    if format_ is not None and not frame.plain and rows in (*FLOATS, "i8"):
        if rows == "i8" and FORMATS[format_.name].floats:
            raise unsupported("cpu", op, f"rows of int8 times weights as {format_.name}")
        codes = tiling.code_panels(frame.variant, rows, format_, len(weights), shape)
        if codes.largest_sum >= 2**31:
            raise unsupported("cpu", op, f"sums of {codes.group} products of integers do not fit into 32 bits")
        return codes
    kinds = {rows, *(str(ir.RankedTensorType(w.type).element_type) for w in weights)}
    if format_ is not None or not kinds <= FLOATS or len({str(w.type) for w in weights}) != 1:
        raise unsupported("cpu", op, f"all its weights are of one type, f32, bf16 or f16, not {kinds}")
    layout = tiling.panels(frame.variant, rows, str(type_.element_type), len(weights), shape, wide=frame.wide)
    if frame.plain and layout.arithmetic in (Arithmetic.WIDENED, Arithmetic.HALVES):  # expanding widens, too
        return replace(layout, arithmetic=Arithmetic.F32)
    return layout


def _quantised(value: ir.Value) -> bool:
    return not isinstance(value.owner, ir.Block) and value.owner.operation.name == "moe.quantize_rows"


def _operands(op: Any, frame: Frame, plan: Plan | None) -> Operands:
    weights = list(op.weights)
    layout = layout_of(op, frame)
    format_ = format_of(weights[0])

    def region() -> Region:
        if isinstance(layout, CodePanels) and format_ is not None:
            return code_packing.region(op, weights, layout, format_)
        return packing.region(op, weights, layout)

    parts = joined_layouts(op, layout)
    source: Multiplied
    if frame.plain:
        element = ir.RankedTensorType(weights[0].type).element_type
        if len(parts) > 1:
            layout = whole_layout(parts)
            source = join(op, layout, parts, element)
        else:
            source = plain(weights, layout, element, op.transposed)
        if isinstance(source, Columns | Joined) and tiling.multiplies_in_rows(frame.variant):
            source = in_rows(source) or source
        name = f"{frame.words}"
    else:
        packed = frame.packed((tuple(weights), layout), region)
        source, name = Packed(layout, packed, frame.table(packed)), f"{packed}"
    if isinstance(layout, CodePanels) and layout.arithmetic.integers:
        lhs = [frame.row_codes[op.lhs, layout.row]]
    else:
        lhs = [frame.storage(one) for one in beside(op.lhs)]
    in_place = not (plan and plan.gather) and len(lhs) == 1 and lies_ready(layout, lhs[0])
    stride = lhs[0].stride if in_place else layout.row_stride()
    chunk = tiling.chunk_rows(source.chunk, stride, tiling.most_rows(frame.variant, layout))
    rows_size = _rows_size(chunk, stride, plan.slots_per_token if plan else 1)
    copied = None if in_place else frame.workspace(rows_size)
    expanded = None
    if not isinstance(source, InPlace):
        expanded = frame.workspace(Size(per_thread=expanded_bytes(source)))
    swapped = None
    most = most_vectors(layout, source, frame.variant.registers) if plan is not None else 0
    if isinstance(source, Held) and most:
        swapped = Swapped(layout, source, most, frame.workspace(swapped_memory(layout, most)))
    decoded = None
    if isinstance(layout, CodePanels) and isinstance(source, Packed) and tiling.decoded_rows(frame.variant, layout):
        unit = Decoded(layout, source)
        decoded = unit, frame.workspace(Size(per_thread=expanded_bytes(unit)))
    name = f"{frame.name}{name}_{stride}"
    return Operands(name, layout, source, expanded, tuple(lhs), parts, plan, copied, stride, chunk, swapped, decoded)


def _rows_size(chunk: int, stride: int, rows_per_token: int) -> Size:
    """The threads' buffers for copied rows: of a chunk, but of no more rows than the call has."""
    return Size(per_thread=chunk * stride, per_thread_token=rows_per_token * stride)
