"""moe.route: the row program of every token, threads sharing the tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch_mlir import ir

from moec.backends.cpu.frame import Call, Frame, Phase, Storage
from moec.backends.cpu.parameters import captured
from moec.backends.cpu.rowprogram import Program
from moec.backends.cpu.rows import Row
from moec.backends.cpu.values import Value


def route(op: Any, frame: Frame) -> Sequence[Phase]:
    """A token's choice is worked out by one thread in a fixed order: its bits depend on nothing but the token."""
    block = op.body.blocks[0]
    own = frame.storage(op.x)
    storages = {value: frame.storage(value) for value in captured(block)}
    results = frame.buffer(op.index), frame.buffer(op.weight)
    code = frame.error("RangeError", "an index lies outside the table that the router reads by it")

    def emit(call: Call) -> None:
        with call.share(call.tokens) as token:
            chosen = Program(call, storages, code).run(block, token, own)
            for row, target in zip(chosen, results, strict=True):
                write_row(call, row, target, token)

    return [Phase("route", emit, work=work(block))]


def write_row(call: Call, row: Row, target: Storage, token: Value) -> None:
    """Exactly the row: the next one may be another thread's."""
    b, lanes = call.b, call.frame.variant.lanes
    out = Row(row.shape, row.element, call.row(target, token))
    for index in range(0, row.count, lanes):
        out.store(b, index, row.load(b, index, lanes), min(lanes, row.count - index))


def work(block: ir.Block) -> int:
    """A rough count of FLOPs: ten for every element that an operation makes, two for every weight."""
    total = 0
    for op in block.operations:
        for value in (*op.operation.results, *op.operation.operands):
            if isinstance(value.type, ir.RankedTensorType) and value.type.has_static_shape:
                count = 1
                for n in value.type.shape:
                    count *= n
                total += 10 * count if value in list(op.operation.results) else 2 * count
    return total
