"""Verifiers of `moec.dialect.joined`."""

from typing import Any

from torch_mlir import ir

from moec.dialect.checks import (
    FINISH_KINDS,
    Unsound,
    batched,
    expect,
    positive,
    region_elements,
    require,
    scalar_region,
    shape,
    sound,
    tensor,
)
from moec.dialect.parts import part_of


@sound
def join_rows(op: Any) -> None:
    batched(op.out, "the result", 2)
    (ends,) = shape(tensor(op.offsets, "offsets"))
    expect(op.offsets, "offsets", (ends,), "i32")
    experts: list[int] = []
    for number, rows in enumerate(op.rows):
        require(rows.type == op.out.type, f"rows {number} must be {op.out.type}, not {rows.type}")
        made = None if isinstance(rows.owner, ir.Block) else rows.owner.operation
        if made is None or made.name != "moe.grouped_matmul" or made.opview.offsets != op.offsets:
            raise Unsound(f"rows {number} must be those of a product of the same plan")
        experts += part_of(made) or ()
    require(sorted(experts) == list(range((ends or 0) - 1)), "the products must have each expert of the plan once")


@sound
def sum_rows(op: Any) -> None:
    (columns,) = batched(op.rows, "rows", 2)
    batched(op.tokens, "tokens")
    (ends,) = shape(tensor(op.offsets, "offsets"))
    expect(op.offsets, "offsets", (ends,), "i32")
    expect(op.slots, "slots", (None,), "i32")
    positive(op, "slots_per_token")
    expect(op.out, "the result", (None, columns))
    scalar_region(op, op.finish, "the finish", 1, [tensor(op.out, "the result").element_type])
    region_elements(op, op.finish, FINISH_KINDS, 0, columns or 0)
