"""What the kernels of a plan leave behind for those that use it, beside its results."""

from __future__ import annotations

from torch_mlir import ir

from moec.backends.cuda.kernel import Buffer, Scope


def slots_per_token(offsets: ir.Value) -> int:
    """K of the plan that makes these offsets."""
    index = offsets.owner.operation.operands[0]
    return int(ir.RankedTensorType(index.type).get_dim_size(1))


def rows_of_slots(scope: Scope, offsets: ir.Value) -> Buffer:
    """`int` [T * K]: the row in plan order of every flat slot, -1 where the slot is empty.

    Ascending rows of a token are ascending experts.
    """
    return scope.buffer(offsets, "rows_of_slots", per_token=4 * slots_per_token(offsets), fixed=0)
