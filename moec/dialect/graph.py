"""Graph-level operations of the `moe` dialect: what a layer computes, before any kernel is chosen.

Shapes: T tokens (always the dynamic leading dimension), d model width, E experts, K slots per token
(the most experts a token can have), R rows = occupied slots, sorted by expert.  `index` tensors hold expert
numbers, -1 marks an empty slot.

Regions are written for one token.  Other tensors are captured: `moe.row` takes this token's row of a tensor in token
order, `moe.own` this expert's slice of a parameter; a parameter used whole is used directly.
"""

from typing import Any

from torch_mlir import ir
from torch_mlir.dialects.ext import Operand, Pure, Region, Result

from moec.dialect import checks
from moec.dialect.moe import Moe


class RouteOp(Moe.Operation, name="route", traits=[Pure]):
    """Chooses experts: the region maps one row of x to (index tensor<Kxi32>, weight tensor<Kxf32>).

    It ends in `moe.yield_choice`.  The region sees one token, so a token's routing cannot depend on its batch.
    Results: index tensor<?xKxi32>, weight tensor<?xKxf32>.
    """

    x: Operand[Any]
    index: Result[Any]
    weight: Result[Any]
    body: Region

    def verify_invariants(self) -> bool:
        return checks.route(self)


class CapacityOp(Moe.Operation, name="capacity", traits=[Pure]):
    """Empties the slots that overflow an expert: keeps the first C = max(minimum, ceil(factor*T*K/experts)) of each.

    `order` says who comes first: "token" (t, then slot: Switch, arXiv:2101.03961), "choice" (slot, then t: GShard,
    arXiv:2006.16668), "score" (largest weight first, then t, then slot).
    """

    index: Operand[Any]
    weight: Operand[Any]
    experts: ir.IntegerAttr
    factor: ir.FloatAttr
    minimum: ir.IntegerAttr
    order: ir.StringAttr
    kept: Result[Any]

    def verify_invariants(self) -> bool:
        return checks.capacity(self)


class DispatchOp(Moe.Operation, name="dispatch", traits=[Pure]):
    """Copies tokens into expert order: rows[r] = x[slots[r] / K].

    `slots` tensor<?xi32> lists the occupied flat slots t*K+j sorted by (expert, t, j); `offsets`
    tensor<(E+1)xi32>: expert e owns rows offsets[e]..offsets[e+1].
    """

    x: Operand[Any]
    index: Operand[Any]
    experts: ir.IntegerAttr
    rows: Result[Any]
    offsets: Result[Any]
    slots: Result[Any]

    def verify_invariants(self) -> bool:
        return checks.dispatch(self)


class ExpertsOp(Moe.Operation, name="experts", traits=[Pure]):
    """Applies each expert to its rows: the region maps one row to that expert's output, tensor<Nxf32>.

    rows tensor<?xd>, offsets tensor<(E+1)xi32>; result tensor<?xNxf32>.
    """

    rows: Operand[Any]
    offsets: Operand[Any]
    out: Result[Any]
    body: Region

    def verify_invariants(self) -> bool:
        return checks.experts(self)


class CombineOp(Moe.Operation, name="combine", traits=[Pure]):
    """y[t] = sum over the rows of token t, in row order, of weight[slot] * rows[r].

    rows tensor<?xNxf32>, slots tensor<?xi32>, weight tensor<?xKxf32>; result tensor<?xNxf32>.  A token without
    rows gets zeros.
    """

    rows: Operand[Any]
    slots: Operand[Any]
    weight: Operand[Any]
    out: Result[Any]

    def verify_invariants(self) -> bool:
        return checks.combine(self)


class SharedOp(Moe.Operation, name="shared", traits=[Pure]):
    """Applies each of `count` shared experts to every token and adds the results in order.

    The region is as in `moe.experts`.  x tensor<?xd>; result tensor<?xNxf32>.
    """

    x: Operand[Any]
    count: ir.IntegerAttr
    out: Result[Any]
    body: Region

    def verify_invariants(self) -> bool:
        return checks.shared(self)
