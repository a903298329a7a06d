"""Gradients of the grouped matmuls of experts.

A consumer of rows h (a combine, or a further grouped matmul) multiplies them by W; its rows get gradients d.  One
matmul by W transposed gives d h, and its epilogue goes on through the epilogue that made h: to the gradients of the
accumulators before it, which are all that leaves the kernel, besides what W's own gradient and the routing weights
need.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch_mlir import ir
from torch_mlir.dialects import arith

from moec.dialect import ElementOp, GroupedMatmulCombineOp, GroupedMatmulOp
from moec.passes.gradients.affine import Term
from moec.passes.gradients.formulas import add, stretched, widened
from moec.passes.gradients.grouped import (
    Plan,
    beside,
    combined,
    group_sum,
    map_rows,
    plan_of,
    sum_of_rows,
    transposed_matmul,
    weight_gradient,
)
from moec.passes.gradients.replay import Replay, result_of, through_rounding
from moec.passes.gradients.reverse import reverse
from moec.passes.gradients.row_rules import NoRule
from moec.passes.gradients.tape import Tape, row
from moec.passes.rewriting import defining, dims, element_type, operations, users

Matmul = GroupedMatmulOp | GroupedMatmulCombineOp


@dataclass(frozen=True)
class Consumed:
    """What a consumer's kernel gave, in row order: h times the coefficient of each of its products, and the products of
    h with each accumulator, element by element."""

    weighted: list[ir.Value]
    products: list[ir.Value]


@dataclass(frozen=True)
class Product:
    """Rows times transposed weights, a part of the gradient of tokens; `scale` maps its accumulators (None: as they
    are, and the rows are in the order of the plan)."""

    plan: Plan
    rows: ir.Value
    gather: bool
    weights: ir.Value
    scale: Callable[[ir.Value], ir.Value] | None

    def joins(self, other: Product) -> bool:
        """Whether one kernel can add up both, row by row."""
        return (
            self.scale is None
            and other.scale is None
            and self.plan.slots == other.plan.slots
            and element_type(self.rows) == element_type(other.rows)
            and element_type(self.weights) == element_type(other.weights)
        )


@dataclass
class Experts:
    """Goes backward through the grouped matmuls of `tape.forward`.

    `accumulators` holds the gradients of a matmul's accumulators where a consumer's kernel gave them already.
    `tokens` are the products that add up to the gradient of the tokens, to be emitted at the end.  `done` are the
    operations behind the one at work.
    """

    tape: Tape
    accumulators: dict[ir.Value, list[ir.Value | None]]
    tokens: dict[ir.Value, list[Product]]
    done: list[ir.Operation]

    def token_sums(self, x: ir.Value) -> list[ir.Value]:
        """What experts add to the gradient of tokens, f32: a sum for each plan, whose rows are added up first."""
        groups: list[list[Product]] = []
        for product in self.tokens.pop(x):
            known = next((group for group in groups if group[0].joins(product)), None)
            if known is None:
                groups.append([product])
            else:
                known.append(product)
        return [_emitted(group) for group in groups]

    def grouped_backward(self, matmul: GroupedMatmulOp) -> None:
        """Hand the gradients of a grouped matmul on to its weights, its rows and what its epilogue reads."""
        tape, result = self.tape, matmul.out
        parts = self.accumulators.pop(result, None)
        plan = plan_of(tape, matmul)
        if parts is None:
            parts = self._through_epilogue(matmul)
        gather = bool(ir.IntegerAttr(matmul.gather).value)
        last = max((i for i, part in enumerate(parts) if part is not None), default=-1)
        for i, (weights, part) in enumerate(zip(matmul.weights, parts, strict=True)):
            if part is None:
                continue
            if gather:
                rows = tape.recall(matmul.lhs)
                self.tokens_through(plan, part, False, matmul, weights, None)
            else:
                rows = self.consume(matmul, plan, part, False, [(weights, None)], dots=False, last=i == last).weighted[
                    0
                ]
            if weights in tape.active:
                tape.contribute(weights, weight_gradient(plan, part, False, rows, gather, weights))

    def consume(
        self,
        matmul: Matmul,
        plan: Plan,
        d: ir.Value,
        gather: bool,
        products: Sequence[tuple[ir.Value, Term | None]],
        *,
        dots: bool,
        last: bool = True,
    ) -> Consumed:
        """Emit the kernel that takes gradients d of a consumer's rows to those of its operand h.

        `products` are the consumer's weights with the coefficient of each (None: 1).  The last use of h goes on through
        the epilogue that made h; an earlier one leaves its part of the gradient of h.
        """
        producer = defining(matmul.lhs)
        inner = producer.opview if producer is not None and producer.name == "moe.grouped_matmul" else None
        if inner is None and not ir.IntegerAttr(matmul.gather).value:
            raise NoRule("rows that come from no matmul")
        ends = last and all(_top(user) in self.done or _top(user) == matmul.operation for user in users(matmul.lhs))
        others = self.tape.gradients.pop(matmul.lhs, []) if ends and inner is not None else []
        maker = _Maker(self.tape, matmul, inner, ends, others)
        made = transposed_matmul(
            plan, d, gather, [self.tape.recall(w) for w, _ in products],
            lambda accumulators: maker.build(accumulators, [term for _, term in products], dots),
        )  # fmt: skip
        if inner is not None and ends:
            self.accumulators[inner.out] = [made.get(f"d{i}") for i in range(len(inner.weights))]
            for name, element in maker.elements.items():
                self._through_element(plan_of(self.tape, inner), element, made[name])
        elif inner is not None:
            self.tape.contribute(matmul.lhs, made["rows"])
        weighted = [made[f"h{i}"] for i in range(len(products))]
        return Consumed(weighted, [made[f"p{i}"] for i in range(len(products))] if dots else [])

    def tokens_through(
        self, plan: Plan, rows: ir.Value, gather: bool, matmul: Matmul, weights: ir.Value, term: Term | None
    ) -> None:
        """Note that rows times transposed weights, scaled by a coefficient, add up to the gradient of the tokens."""
        tape = self.tape
        if matmul.lhs not in tape.active:
            return
        tokens = _untaken(matmul.lhs)
        if not isinstance(tokens, ir.BlockArgument):
            raise NoRule("an expert that reads a computed token")

        def scale(accumulator: ir.Value) -> ir.Value:
            block = matmul.epilogue.blocks[0]
            replay = Replay(block, [None] * len(block.arguments), lambda e: scalar_leaf(tape, e))
            coefficient = None if term is None else term.value(replay)
            return accumulator if coefficient is None else arith.mulf(accumulator, coefficient)

        whole = tape.recall(weights)
        product = Product(plan, rows, gather, whole, None if term is None and not gather else scale)
        self.tokens.setdefault(tokens, []).append(product)

    def _through_epilogue(self, matmul: GroupedMatmulOp) -> list[ir.Value | None]:
        """The gradients of accumulators from that of the result, where no consumer's kernel could give them."""
        tape = self.tape
        block = matmul.epilogue.blocks[0]
        parts = tape.gradients.pop(matmul.out, [])
        if not parts:
            return [None] * len(block.arguments)
        for element in operations(block, "moe.element"):
            if element.tensor in tape.active:
                rows = self._map(matmul, parts, element)
                if rows is not None:
                    self._through_element(plan_of(tape, matmul), element, rows)
        return [self._map(matmul, parts, i) for i in range(len(block.arguments))]

    def _map(self, matmul: GroupedMatmulOp, parts: list[ir.Value], wanted: int | ElementOp) -> ir.Value | None:
        tape, width = self.tape, dims(matmul.out)[1]
        block = matmul.epilogue.blocks[0]
        none: list[bool] = []

        def build() -> ir.Value:
            d: ir.Value | None = None
            for part in parts:
                d = add(d, widened(row(part)))
            accumulators = [widened(row(tape.recall_accumulator(matmul, i))) for i in range(len(block.arguments))]
            replay = Replay(block, accumulators, lambda e: _row_leaf(tape, e, width), width)
            value = replay.value(through_rounding(result_of(matmul.epilogue)))
            target = accumulators[wanted] if isinstance(wanted, int) else replay.leaves.get(wanted.element)
            assert d is not None
            gradient = None
            if target is not None:
                gradient = reverse(_here(), {value: d}, [target])[0]
            none.append(gradient is None)
            return d if gradient is None else gradient

        element = element_type(matmul.weights[0]) if isinstance(wanted, int) else ir.F32Type.get()
        made = map_rows(parts[0], width, build, element)
        return None if none[0] else made

    def _through_element(self, plan: Plan, element: ElementOp, rows: ir.Value) -> None:
        """Contribute the gradient of what an epilogue reads, given that of each row and column."""
        tape, whole = self.tape, element.tensor
        match ir.StringAttr(element.kind).value:
            case "row":
                tape.contribute(whole, rows)
            case "scalar":
                tape.contribute(whole, sum_of_rows(rows))
            case "column":
                tape.contribute(whole, group_sum(plan, rows, False, None, whole))
            case "expert":
                tape.contribute(whole, group_sum(plan, sum_of_rows(rows), False, None, whole))
            case kind:
                raise NoRule(f"an epilogue that reads elements of kind {kind}")


@dataclass
class _Maker:
    """Builds the epilogue of a consumer's kernel; see `Experts.consume`."""

    tape: Tape
    consumer: Matmul
    inner: GroupedMatmulOp | None
    ends: bool
    others: list[ir.Value]

    def __post_init__(self) -> None:
        self.elements: dict[str, ElementOp] = {}

    def build(self, accumulators: Sequence[ir.Value], terms: Sequence[Term | None], dots: bool) -> dict[str, ir.Value]:
        outer_block = self.consumer.epilogue.blocks[0]
        outer = Replay(outer_block, [None] * len(outer_block.arguments), self._leaf)
        coefficients = [None if term is None else term.value(outer) for term in terms]
        inner, h, before = self._operand()
        named: dict[str, ir.Value] = {}
        d: ir.Value | None = None
        for i, (acc, coefficient) in enumerate(zip(accumulators, coefficients, strict=True)):
            d = add(d, acc if coefficient is None else arith.mulf(acc, coefficient))
            same = [j for j in range(i) if coefficients[j] == coefficient]
            named[f"h{i}"] = named[f"h{same[0]}"] if same else h if coefficient is None else arith.mulf(h, coefficient)
        if dots:
            named |= {f"p{i}": arith.mulf(acc, h) for i, acc in enumerate(accumulators)}
        assert d is not None
        if self.inner is None:
            return named
        if not self.ends:
            return {**named, "rows": d}
        for other in self.others:
            d = arith.addf(d, widened(self._element(other, "row" if dims(other)[1] > 1 else "scalar")))
        return {**self._through(inner, h, before, d), **named}

    def _operand(self) -> tuple[Replay | None, ir.Value, list[ir.Value]]:
        """h as it was before rounding, by a replay of the epilogue that made it, and that one's accumulators."""
        if self.inner is None:
            return None, widened(self._element(self.tape.recall(self.consumer.lhs), "token")), []
        block = self.inner.epilogue.blocks[0]
        kind = "row" if dims(self.inner.out)[1] > 1 else "scalar"
        before = [
            widened(self._element(self.tape.recall_accumulator(self.inner, i), kind))
            for i in range(len(block.arguments))
        ]
        replay = Replay(block, before, self._leaf)
        return replay, replay.value(through_rounding(result_of(self.inner.epilogue))), before

    def _through(self, inner: Replay | None, h: ir.Value, before: list[ir.Value], d: ir.Value) -> dict[str, ir.Value]:
        assert inner is not None
        assert self.inner is not None
        block = self.inner.epilogue.blocks[0]
        elements = [e for e in operations(block, "moe.element") if e.tensor in self.tape.active]
        elements = [e for e in elements if e.element in inner.leaves]
        wanted = [*before, *(inner.leaves[e.element] for e in elements)]
        found = reverse(_here(), {h: d}, wanted)
        named = {f"d{i}": part for i, part in enumerate(found[: len(before)]) if part is not None}
        for i, (element, part) in enumerate(zip(elements, found[len(before) :], strict=True)):
            if part is not None:
                named[f"e{i}"] = part
                self.elements[f"e{i}"] = element
        return named

    def _leaf(self, element: ElementOp) -> ir.Value:
        return scalar_leaf(self.tape, element)

    def _element(self, whole: ir.Value, kind: str) -> ir.Value:
        return ElementOp(whole, ir.StringAttr.get(kind), element_type(whole)).element


def _emitted(group: Sequence[Product]) -> ir.Value:
    """The sum of products of one plan for each token."""
    first = group[0]
    rows, weights = first.rows, first.weights
    if len(group) > 1:
        rows, weights = beside([one.rows for one in group]), beside([one.weights for one in group])
    return combined(first.plan, rows, first.gather, weights, first.scale or (lambda accumulator: accumulator))


def _untaken(rows: ir.Value) -> ir.Value:
    """The tokens, or what rows of pairs are taken from: its gradient is left in the order of pairs."""
    op = defining(rows)
    return op.operands[0] if op is not None and op.name == "moe.take_rows" else rows


def scalar_leaf(tape: Tape, element: ElementOp) -> ir.Value:
    """An element of a forward epilogue in one of backward."""
    whole = tape.recall(element.tensor)
    return ElementOp(whole, ir.StringAttr.get(ir.StringAttr(element.kind).value), element_type(whole)).element


def _row_leaf(tape: Tape, element: ElementOp, width: int) -> ir.Value:
    kind = ir.StringAttr(element.kind).value
    if kind == "row":
        return row(tape.recall(element.tensor))
    if kind == "scalar":
        return stretched(row(tape.recall(element.tensor)), width)
    raise NoRule(f"an epilogue that reads elements of kind {kind}")


def _here() -> list[ir.Operation]:
    """The operations so far of the block that the insertion point is in."""
    return [op.operation for op in ir.InsertionPoint.current.block.operations]


def _top(op: ir.Operation) -> ir.Operation:
    """The function-level operation that holds `op`, or `op` itself."""
    while op.parent is not None and op.parent.name != "func.func":
        op = op.parent
    return op
