"""Row-level operations: what `linalg`, `arith` and `math` lack for the program of one token.

They appear inside the regions of `moe.route`, `moe.experts` and `moe.shared`, on statically shaped tensors.
"""

from collections.abc import Sequence
from typing import Any

from torch_mlir import ir
from torch_mlir.dialects.ext import Operand, Pure, Result

from moec.dialect import checks
from moec.dialect.moe import Moe, unsegmented


class RowOp(Moe.Operation, name="row", traits=[Pure]):
    """This token's row of a tensor in token order: tensor<?x...> to tensor<...>."""

    tokens: Operand[Any]
    row: Result[Any]

    def verify_invariants(self) -> bool:
        return checks.sliced(self)


class OwnOp(Moe.Operation, name="own", traits=[Pure]):
    """This expert's slice of a parameter: tensor<Ex...> to tensor<...>."""

    param: Operand[Any]
    slice: Result[Any]

    def verify_invariants(self) -> bool:
        return checks.sliced(self)


class TopKOp(Moe.Operation, name="top_k", traits=[Pure]):
    """Positions of the k largest values along the last axis, largest first; ties go to the lower position, NaN first.

    values tensor<...xNxf32>; result tensor<...xkxi32>.
    """

    values: Operand[Any]
    k: ir.IntegerAttr
    index: Result[Any]

    def verify_invariants(self) -> bool:
        return checks.top_k(self)


class TopPOp(Moe.Operation, name="top_p", traits=[Pure]):
    """Positions of the smallest set whose values, taken largest first, add up to at least `mass`; the rest is -1.

    values tensor<Nxf32>; result tensor<mostxi32>, never more than `most` positions.  At least one is chosen.
    """

    values: Operand[Any]
    mass: ir.FloatAttr
    most: ir.IntegerAttr
    index: Result[Any]

    def verify_invariants(self) -> bool:
        return checks.top_p(self)


class TakeOp(Moe.Operation, name="take", traits=[Pure]):
    """values[..., index] along the last axis; an empty slot (-1) gives 0.  Leading axes of both must agree."""

    values: Operand[Any]
    index: Operand[Any]
    out: Result[Any]

    def verify_invariants(self) -> bool:
        return checks.take(self)


class ChosenOp(Moe.Operation, name="chosen", traits=[Pure]):
    """Mask of the positions that `index` holds: tensor<...xkxi32> to tensor<...xNxi1>."""

    index: Operand[Any]
    mask: Result[Any]

    def verify_invariants(self) -> bool:
        return checks.chosen(self)


@unsegmented("operandSegmentSizes")
class YieldOp(Moe.Operation, name="yield", traits=[Pure, ir.IsTerminatorTrait]):
    """Ends a region and gives its value, or its values, all of one type."""

    values: Sequence[Operand[Any]]


class YieldChoiceOp(Moe.Operation, name="yield_choice", traits=[Pure, ir.IsTerminatorTrait]):
    """Ends the region of `moe.route`: index tensor<Kxi32> (-1 empty) and weight tensor<Kxf32>."""

    index: Operand[Any]
    weight: Operand[Any]
