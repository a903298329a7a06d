"""moe.map: a row program for every token or every row in plan order, threads sharing them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from moec.backends.cpu.frame import Call, Frame, Phase
from moec.backends.cpu.parameters import captured
from moec.backends.cpu.route import work, write_row
from moec.backends.cpu.rowprogram import Program


def map_rows(op: Any, frame: Frame) -> Sequence[Phase]:
    """Rows behind the last one of a plan are worked on, too, where there is room for them; nobody reads those."""
    block = op.body.blocks[0]
    storages = {value: frame.storage(value) for value in captured(block)}
    many = frame.rows_per_token.get(op.like, 1)
    out = frame.buffer(op.out, many)
    code = frame.error("RangeError", "an index lies outside the table that a row program reads by it")

    def emit(call: Call) -> None:
        with call.share(call.tokens * many) as row:
            (result,) = Program(call, storages, code).run(block, row)
            write_row(call, result, out, row)

    return [Phase("map", emit, work=many * work(block))]
