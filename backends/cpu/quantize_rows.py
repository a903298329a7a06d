"""moe.quantize_rows: every row becomes integers, once for each way in which matmuls read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch_mlir import ir

from moec.backends.base import unsupported
from moec.backends.cpu import quantise, waves
from moec.backends.cpu.codes import SUM_FACTOR, CodePanels, CodeRows
from moec.backends.cpu.frame import FIRST_ROW, LAST_ROW, SLACK, Call, Frame, Phase, Size, Storage
from moec.backends.cpu.operands import layout_of
from moec.backends.cpu.values import Pointer, Value, byte_width
from moec.formats import FORMATS

MATMULS = ("moe.matmul", "moe.grouped_matmul", "moe.grouped_matmul_combine")
INT8 = FORMATS["int8"]


def quantize_rows(op: Any, frame: Frame) -> Sequence[Phase]:
    """A row is worked out by one thread from the row alone, in a fixed order."""
    source = frame.storage(op.rows)
    per_token = frame.rows_per_token.get(op.rows, 1)
    offsets = waves.plan_of(op.operation)
    groups = None if offsets is None else frame.groups[offsets]
    window = frame.windows.get(offsets) if source.windowed else None
    targets: dict[CodeRows, Storage] = {}
    for use in op.out.uses:
        user = use.owner.operation
        if user.name not in MATMULS or user.opview.lhs != op.out:
            raise unsupported("cpu", user, "rows that are quantised to int8 can only be multiplied")
        layout = layout_of(user.opview, frame)
        if not isinstance(layout, CodePanels):
            raise unsupported("cpu", user, "rows that are quantised to int8 need quantised weights")
        if layout.row not in targets:
            stride = layout.row_stride()
            size = window.size(stride) if window else Size(per_token=per_token * stride)
            word = frame.workspace(Size(size.fixed + SLACK, size.per_token))
            element = ir.IntegerType.get_signless(8)
            targets[layout.row] = Storage(word, 0, element, stride, stride, windowed=source.windowed)
            frame.row_codes[op.out, layout.row] = targets[layout.row]

    def emit(call: Call) -> None:
        b = call.b
        first = call.load_word(FIRST_ROW) if source.windowed else b.index(0)
        if source.windowed:
            count = call.load_word(LAST_ROW) - first
        else:
            count = call.tokens if groups is None else waves.row_count(call, groups)
        with call.share(count) as index:
            row = first + index
            for rows, target in targets.items():
                _row(call, rows, source, call.row(source, row), call.row(target, row))

    return [Phase("quantize_rows", emit, work=20 * per_token * source.columns)]


def _row(call: Call, rows: CodeRows, source: Storage, row: Pointer, to: Pointer) -> None:
    b = call.b
    width = byte_width(source.element)
    as_ = b.i8 if rows.arithmetic.elements == 4 else b.i16
    largest = quantise.largest(b, quantise.Run(row, source.element, rows.inner))
    scale = largest / float(INT8.divisor)
    used, whole = rows.group * byte_width(as_), 4 * rows.group_dots

    def group(number: Value) -> Value:
        run = quantise.Run(row.at(number, rows.group * width), source.element, rows.group)
        target = to.at(number, rows.group_bytes)
        sum_ = quantise.codes(b, run, scale, INT8, target, as_)
        if whole > used:
            zero, size = b.constant(b.i8, 0), b.index(whole - used)
            b.intrinsic("llvm.memset", None, target + used, zero, size, b.constant(b.i1, 0))
        if rows.grouped:
            (target + rows.group_sum).store(sum_ * -SUM_FACTOR)
        return sum_

    with b.for_(0, rows.groups, carry=[b.constant(b.i32, 0)]) as loop:
        loop.carry(loop.value + group(loop.index))
    (to + rows.sum).store(-loop.result)
    (to + rows.scale).store(scale)
