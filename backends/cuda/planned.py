"""What kernels that sort slots by expert leave behind for others, and what others do for them."""

from __future__ import annotations

from dataclasses import dataclass

from torch_mlir import ir

from moec.backends.cuda.kernel import Buffer, Scope

BLOCKS = 128
"""How many blocks share the slots of a call with many; each has the slots of consecutive tokens."""


def slots_per_token(offsets: ir.Value) -> int:
    """K of the plan that makes these offsets."""
    return _columns(offsets.owner.operation.operands[0])


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


def counted_slots(index: ir.Value) -> Counted | None:
    """What is sorted of an index tensor, block by block in the order of tokens; None if nothing is."""
    for use in index.uses:
        user = use.owner.operation
        if user.name == "moe.plan" or (
            user.name == "moe.capacity" and ir.StringAttr(user.attributes["order"]).value != "choice"
        ):
            return Counted(_columns(index), int(ir.IntegerAttr(user.attributes["experts"]).value))
    return None


def _columns(value: ir.Value) -> int:
    return int(ir.RankedTensorType(value.type).get_dim_size(1))
