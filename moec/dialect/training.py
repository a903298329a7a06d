"""Operations of the `moe` dialect that training needs: sums over the rows of an expert, and programs of rows.

Rows are in plan order: R occupied slots sorted by expert.  Sums run in ascending row order, accumulate in f32, and give
zeros for experts without rows.
"""

from collections.abc import Sequence
from typing import Any

from torch_mlir import ir
from torch_mlir.dialects.ext import Operand, Pure, Region, Result

from moec.dialect import training_checks as checks
from moec.dialect.moe import Moe


class MapOp(Moe.Operation, name="map", traits=[Pure]):
    """A row program for every row of `like`, which says only how many rows there are and in which order.

    The region takes nothing.  It reads rows of tensors of the order of `like` by `moe.row`, parameters directly, and
    yields a tensor<...>; the result is tensor<?x...>.
    """

    like: Operand[Any]
    out: Result[Any]
    body: Region

    def verify_invariants(self) -> bool:
        return checks.map_rows(self)


class WeightGradientOp(Moe.Operation, name="weight_gradient", traits=[Pure]):
    """out[e, n, k] = sum over the rows r of expert e of a[r, n] * b[r, k].

    a tensor<?xN>, b tensor<?xK>, out tensor<ExNxK>.  With `gather_a` (`gather_b`) the operand is in token order, and
    row r reads that of token slots[r] / slots_per_token.
    """

    a: Operand[Any]
    b: Operand[Any]
    offsets: Operand[Any]
    slots: Operand[Any]
    gather_a: ir.IntegerAttr
    gather_b: ir.IntegerAttr
    slots_per_token: ir.IntegerAttr
    out: Result[Any]

    def verify_invariants(self) -> bool:
        return checks.weight_gradient(self)


class DenseWeightGradientOp(Moe.Operation, name="dense_weight_gradient", traits=[Pure]):
    """The same over all tokens, as one expert: out[0, n, k] = sum over t of a[t, n] * b[t, k]; out tensor<1xNxK>."""

    a: Operand[Any]
    b: Operand[Any]
    out: Result[Any]

    def verify_invariants(self) -> bool:
        return checks.dense_weight_gradient(self)


class GroupSumOp(Moe.Operation, name="group_sum", traits=[Pure]):
    """out[e, n] = sum over the rows r of expert e of factor[r, 0] * a[r, n]; without a factor, of a[r, n].

    a tensor<?xN>, in token order with `gather`; at most one factor, tensor<?x1xf32> in row order; out tensor<ExN>.
    """

    a: Operand[Any]
    offsets: Operand[Any]
    slots: Operand[Any]
    factor: Sequence[Operand[Any]]
    gather: ir.IntegerAttr
    slots_per_token: ir.IntegerAttr
    out: Result[Any]

    def verify_invariants(self) -> bool:
        return checks.group_sum(self)


class DenseGroupSumOp(Moe.Operation, name="dense_group_sum", traits=[Pure]):
    """out[0, n] = sum over all rows r of a[r, n]; a tensor<?xN>, out tensor<1xN>."""

    a: Operand[Any]
    out: Result[Any]

    def verify_invariants(self) -> bool:
        return checks.dense_group_sum(self)


class SlotValuesOp(Moe.Operation, name="slot_values", traits=[Pure]):
    """Numbers from row order to slot order: out[t, j] = rows[r, 0] where slots[r] = t*K + j, and 0 at empty slots.

    rows tensor<?x1xf32>, out tensor<?xKxf32>.  `tokens` is any tensor in token order: it says how many there are.
    """

    rows: Operand[Any]
    slots: Operand[Any]
    tokens: Operand[Any]
    out: Result[Any]

    def verify_invariants(self) -> bool:
        return checks.slot_values(self)


class RowValuesOp(Moe.Operation, name="row_values", traits=[Pure]):
    """Numbers from slot order to row order: out[r, 0] = values[t, j] where slots[r] = t*K + j.

    values tensor<?xKxf32>, out tensor<?x1xf32>.
    """

    values: Operand[Any]
    slots: Operand[Any]
    out: Result[Any]

    def verify_invariants(self) -> bool:
        return checks.row_values(self)


class CountOp(Moe.Operation, name="count", traits=[Pure]):
    """How often each expert is chosen: index tensor<?xKxi32> to tensor<Exi32>.

    Empty slots (-1) and numbers from E on are not counted.
    """

    index: Operand[Any]
    out: Result[Any]

    def verify_invariants(self) -> bool:
        return checks.count(self)


class PutOp(Moe.Operation, name="put", traits=[Pure]):
    """In a row program, the transpose of `moe.take`: zeros, and values added up in order at the positions of `index`.

    values tensor<...xkxf32>, index tensor<...xkxi32> (-1: left out); result tensor<...xNxf32>.
    """

    values: Operand[Any]
    index: Operand[Any]
    out: Result[Any]

    def verify_invariants(self) -> bool:
        return checks.put(self)
