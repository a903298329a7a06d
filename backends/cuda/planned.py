"""What kernels that sort slots by expert leave behind for others, and what others do for them."""

from __future__ import annotations

from dataclasses import dataclass

from torch_mlir import ir

from moec.backends.cuda.kernel import Buffer, Scope

BLOCKS = 128
"""How many blocks share the slots of a call with many; each has the slots of consecutive tokens."""


def slots_per_token(offsets: ir.Value) -> int:
    """K of the plan that makes these offsets."""
    return columns_of(offsets.owner.operation.operands[0])


def rows_of_slots(scope: Scope, offsets: ir.Value) -> Buffer:
    """`int` [T * K]: the row in plan order of every flat slot, -1 where the slot is empty.

    Ascending rows of a token are ascending experts.
    """
    return scope.buffer(offsets, "rows_of_slots", per_token=4 * slots_per_token(offsets), fixed=0)


def counts_of_blocks(scope: Scope, index: ir.Value, experts: int) -> Buffer:
    """`int` [BLOCKS, experts]: how many of each block's slots have each expert."""
    return scope.buffer(index, f"counts of {experts}", 0, 4 * BLOCKS * experts)


@dataclass(frozen=True)
class Counted:
    """Slots that are sorted: how many a token has, and how many experts there are."""

    per_token: int
    experts: int


def sorter(index: ir.Value) -> ir.Operation | None:
    """The first plan or capacity, if any, that sorts the slots of an index tensor."""
    users = [use.owner.operation for use in index.uses]
    found = [user for user in users if user.name in ("moe.plan", "moe.capacity") and user.operands[0] == index]
    return found[-1] if found else None


def counted_slots(index: ir.Value) -> Counted | None:
    """What is sorted of an index tensor block by block in the order of tokens; None if nothing is."""
    found = sorter(index)
    if found is None or (found.name == "moe.capacity" and ir.StringAttr(found.attributes["order"]).value == "choice"):
        return None
    return Counted(columns_of(index), int(ir.IntegerAttr(found.attributes["experts"]).value))


def counts_by(op: ir.Operation) -> list[ir.Value]:
    """Results of counts that the kernels of a plan or capacity write: nothing reads these before the function ends."""
    index, experts = op.operands[0], int(ir.IntegerAttr(op.attributes["experts"]).value)
    if sorter(index) != op:
        return []
    counts = [use.owner.operation.results[0] for use in index.uses if use.owner.operation.name == "moe.count"]
    return [
        value
        for value in counts
        if ir.RankedTensorType(value.type).get_dim_size(0) <= experts
        and all(use.owner.operation.name == "func.return" for use in value.uses)
    ]


def columns_of(value: ir.Value) -> int:
    """How many elements a row has."""
    return int(ir.RankedTensorType(value.type).get_dim_size(1))
