"""Products of some of a plan's experts, whose rows are joined: experts that are stored in different ways, on devices.

A `moe.grouped_matmul` with the attribute `part` (array<i32>, ascending) has the weights of these experts of its plan
alone, in this order.  Rows of other experts are not computed: what its result holds there is undefined, until it is
joined with the results of products that have the other experts.
"""

from collections.abc import Sequence
from typing import Any

from torch_mlir import ir
from torch_mlir.dialects.ext import Operand, Pure, Region, Result

from moec.dialect import joined_checks
from moec.dialect.moe import Moe
from moec.dialect.parts import part_of


class JoinRowsOp(Moe.Operation, name="join_rows", traits=[Pure]):
    """The rows of several products of one plan, each of the product that has its expert.

    offsets tensor<(E+1)xi32> of the plan, rows tensor<?xN> in row order: results of grouped matmuls whose parts
    together are all E experts, each once.
    """

    offsets: Operand[Any]
    rows: Sequence[Operand[Any]]
    out: Result[Any]

    def verify_invariants(self) -> bool:
        return joined_checks.join_rows(self)


class SumRowsOp(Moe.Operation, name="sum_rows", traits=[Pure]):
    """Rows in plan order, added up per token in f32, in ascending row order, and then finished.

    `finish` and `tokens` are those of a `moe.grouped_matmul_combine`.
    """

    rows: Operand[Any]
    tokens: Operand[Any]
    offsets: Operand[Any]
    slots: Operand[Any]
    slots_per_token: ir.IntegerAttr
    out: Result[Any]
    finish: Region

    def verify_invariants(self) -> bool:
        return joined_checks.sum_rows(self)


def join_of(product: ir.Operation) -> ir.Operation | None:
    """The `moe.join_rows` that the rows of a product are part of, if any."""
    if part_of(product) is None:
        return None
    users = [use.owner.operation for use in product.results[0].uses]
    return next((user for user in users if user.name == "moe.join_rows"), None)
