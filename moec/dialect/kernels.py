"""Kernel-level operations of the `moe` dialect: what every backend prints.

A *plan* sorts slots by expert.  A grouped matmul multiplies each expert's rows by that expert's matrices and hands
the f32 accumulators, element by element, to an epilogue region.  Weights are tensor<ExNxK> (row-major, as in
`torch.nn.Linear`), so accumulator i is `sum_k lhs[row, k] * weights[i][e, n, k]`.  With the unit attribute `transposed`
they are tensor<ExKxN>, and accumulator i is `sum_k lhs[row, k] * weights[i][e, k, n]`: how gradients go back through a
linear whose weights stay as they are.

Matmuls (not `moe.grouped_matmul_combine`) may have several results of one type; the epilogue yields as many.  `out` is
the result of one that has a single one.

An epilogue captures other tensors through `moe.element`, whose kind says which element row r, column n, of expert e,
token t and flat slot s reads:

| kind     | type          | element    |
|----------|---------------|------------|
| `row`    | tensor<?xN>   | [r, n]     |
| `scalar` | tensor<?x1>   | [r, 0]     |
| `token`  | tensor<?xN>   | [t, n]     |
| `token_scalar` | tensor<?x1> | [t, 0]  |
| `slot`   | tensor<?xK>   | [t, s % K] |
| `column` | tensor<ExN>   | [e, n]     |
| `expert` | tensor<Ex1>   | [e, 0]     |
"""

from collections.abc import Sequence
from typing import Any

from torch_mlir import ir
from torch_mlir.dialects.ext import Operand, Pure, Region, Result

from moec.dialect import checks
from moec.dialect.moe import Moe, only, unsegmented


class PlanOp(Moe.Operation, name="plan", traits=[Pure]):
    """Sorts the occupied slots of `index` (tensor<?xKxi32>, -1 empty) by (expert, token, slot).

    Results: offsets tensor<(E+1)xi32>, slots tensor<?xi32>, as in `moe.dispatch`.  With at most
    `direct_max_tokens` tokens a backend puts the slots in order directly, without a counter for every expert; what is
    computed does not change.
    """

    index: Operand[Any]
    experts: ir.IntegerAttr
    direct_max_tokens: ir.IntegerAttr
    offsets: Result[Any]
    slots: Result[Any]

    def verify_invariants(self) -> bool:
        return checks.plan(self)


class ElementOp(Moe.Operation, name="element", traits=[Pure]):
    """The element of a captured tensor that belongs to this row and column; see the table of kinds above."""

    tensor: Operand[Any]
    kind: ir.StringAttr
    element: Result[Any]

    def verify_invariants(self) -> bool:
        return checks.element(self)


@unsegmented("resultSegmentSizes")
class MatmulOp(Moe.Operation, name="matmul", traits=[Pure]):
    """A dense product with an epilogue: one expert (E = 1) whose rows are the tokens.

    lhs tensor<?xK>, weights tensor<1xNxK>, results tensor<?xN>.
    """

    lhs: Operand[Any]
    weights: Sequence[Operand[Any]]
    outs: Sequence[Result[Any]]
    epilogue: Region

    @property
    def out(self) -> ir.OpResult:
        return only(self)

    @property
    def transposed(self) -> bool:
        return "transposed" in self.operation.attributes

    def verify_invariants(self) -> bool:
        return checks.dense_matmul(self)


@unsegmented("resultSegmentSizes")
class GroupedMatmulOp(Moe.Operation, name="grouped_matmul", traits=[Pure]):
    """One matmul an expert over its rows; the epilogue maps the accumulators of an element to that of the result.

    `gather` = true: lhs is in token order and row r reads lhs[slots[r] / K]; false: lhs is in row order.
    lhs tensor<?xK>, weights tensor<ExNxK>, results tensor<?xN> in row order.
    """

    lhs: Operand[Any]
    offsets: Operand[Any]
    slots: Operand[Any]
    weights: Sequence[Operand[Any]]
    gather: ir.IntegerAttr
    slots_per_token: ir.IntegerAttr
    outs: Sequence[Result[Any]]
    epilogue: Region

    @property
    def out(self) -> ir.OpResult:
        return only(self)

    @property
    def transposed(self) -> bool:
        return "transposed" in self.operation.attributes

    def verify_invariants(self) -> bool:
        return checks.grouped_matmul(self)


class GroupedMatmulCombineOp(Moe.Operation, name="grouped_matmul_combine", traits=[Pure]):
    """A grouped matmul whose rows are added up per token, in ascending row order, and then finished.

    `epilogue` maps the accumulators to the f32 that row r contributes; `finish` maps the f32 sum of a token to the
    element of the result, tensor<?xN> in token order (its `moe.element` kinds: token, token_scalar).  A token without
    rows has the sum 0.  `tokens` is any tensor in token order: it says how many tokens there are.
    """

    lhs: Operand[Any]
    tokens: Operand[Any]
    offsets: Operand[Any]
    slots: Operand[Any]
    weights: Sequence[Operand[Any]]
    gather: ir.IntegerAttr
    slots_per_token: ir.IntegerAttr
    out: Result[Any]
    epilogue: Region
    finish: Region

    @property
    def transposed(self) -> bool:
        return "transposed" in self.operation.attributes

    def verify_invariants(self) -> bool:
        return checks.grouped_matmul_combine(self)
