"""Gradients of `moe.grouped_matmul_combine`: from the gradient of tokens back to rows, and to the routing weights."""

from dataclasses import dataclass

from torch_mlir import ir

from moec.dialect import ElementOp, GroupedMatmulCombineOp, MatmulOp, RowValuesOp, SlotValuesOp, TakeOp
from moec.passes.gradients.affine import Coefficient, Term, terms
from moec.passes.gradients.experts import Experts
from moec.passes.gradients.formulas import add, collapse, row_sum, widened
from moec.passes.gradients.grouped import Plan, group_sum, map_rows, weight_gradient
from moec.passes.gradients.replay import Replay, result_of
from moec.passes.gradients.reverse import reverse
from moec.passes.gradients.row_rules import NoRule
from moec.passes.gradients.tape import DYNAMIC, row
from moec.passes.rewriting import count_axis, dims, fill_region, yield_value

WIDE = ("column",)
"""Kinds of elements besides accumulators that an expert's output may be a sum of."""


@dataclass
class Combine:
    """One combine on the way back; `d` is the gradient of its tokens, in backward."""

    experts: Experts
    matmul: GroupedMatmulCombineOp
    plan: Plan
    d: ir.Value

    def run(self) -> None:
        tape, matmul = self.experts.tape, self.matmul
        found = terms(result_of(matmul.epilogue))
        accumulators = [a for a in matmul.epilogue.blocks[0].arguments if a in found]
        columns = [key for key in found if key not in accumulators]
        for key in columns:
            if _kind(key) not in WIDE:
                raise NoRule(f"an expert whose output adds elements of kind {_kind(key)}")
        narrow = self._narrow(found)
        weights = [matmul.weights[a.arg_number] for a in accumulators]
        if ir.IntegerAttr(matmul.gather).value:
            for weight, a in zip(weights, accumulators, strict=True):
                self.experts.tokens_through(self.plan, self.d, True, matmul, weight, found[a])
        consumed = self.experts.consume(
            matmul, self.plan, self.d, True, [(w, found[a]) for w, a in zip(weights, accumulators, strict=True)],
            dots=bool(narrow),
        )  # fmt: skip
        for weight, rows in zip(weights, consumed.weighted, strict=True):
            if weight in tape.active:
                tape.contribute(weight, weight_gradient(self.plan, self.d, True, rows, False, weight))
        dots = dict(zip(accumulators, consumed.products, strict=True)) if narrow else {}
        if narrow:
            dots |= {key: self._column_dots(_element(key).tensor) for key in columns}
        for leaf in narrow:
            self._contribute_narrow(leaf, self._through_coefficients(found, dots, leaf))
        for key in columns:
            if _element(key).tensor in tape.active:
                self._contribute_column(found[key])

    def _narrow(self, found: dict[ir.Value, Term]) -> list[ir.Value]:
        """The elements in coefficients that need gradients: one for each tensor that is read."""
        first: dict[ir.Value, ir.Value] = {}
        for term in found.values():
            for leaf in term.narrow:
                if _element(leaf).tensor in self.experts.tape.active:
                    first.setdefault(_element(leaf).tensor, leaf)
        return list(first.values())

    def _leaf(self, element: ElementOp) -> ir.Value:
        """A narrow element in a map of rows, tensor<1>; what it needs is emitted ahead of the map."""
        whole = self.experts.tape.recall(element.tensor)
        kind = ir.StringAttr(element.kind).value
        if kind == "scalar":
            return row(whole)
        with ir.InsertionPoint(ir.InsertionPoint.current.block.owner):
            if kind == "slot":
                rows = self._row_values(whole)
            elif kind == "expert":
                rows = self._row_values(self._at_choices(whole))
            else:
                raise NoRule(f"an expert's output scaled by elements of kind {kind}")
        return row(rows)

    def _row_values(self, slot_values: ir.Value) -> ir.Value:
        """Values of slots in row order, tensor<?x1xf32>."""
        type_ = ir.RankedTensorType.get([DYNAMIC(), 1], ir.F32Type.get())
        return RowValuesOp(slot_values, self.plan.slots, type_).out

    def _at_choices(self, numbers: ir.Value) -> ir.Value:
        """A number for each expert, tensor<Ex1>, at the experts that tokens chose: tensor<?xKxf32>."""

        def build() -> ir.Value:
            listed = widened(collapse(numbers, [[0, 1]], dims(numbers)[:1]))
            return TakeOp(listed, row(self.plan.index), self._slots_type()).out

        return map_rows(self.plan.index, dims(self.plan.index)[1], build)

    def _slots_type(self) -> ir.Type:
        return ir.RankedTensorType.get([dims(self.plan.index)[1]], ir.F32Type.get())

    def _replay(self) -> Replay:
        block = self.matmul.epilogue.blocks[0]
        return Replay(block, [None] * len(block.arguments), self._leaf, 1)

    def _through_coefficients(
        self, found: dict[ir.Value, Term], dots: dict[ir.Value, ir.Value], leaf: ir.Value
    ) -> ir.Value:
        """The gradient of a narrow element for every row, tensor<?x1xf32>, given those of the coefficients."""
        tensor = _element(leaf).tensor

        def build() -> ir.Value:
            replay = self._replay()
            total: ir.Value | None = None
            for key, term in found.items():
                same = [one for one in term.narrow if _element(one).tensor == tensor]
                if not same:
                    continue
                d = row_sum(widened(row(dots[key])))
                if term.coefficient is not None:
                    value = term.coefficient(replay)
                    leaves = [replay.value(one) for one in same]
                    here = [op.operation for op in ir.InsertionPoint.current.block.operations]
                    for part in reverse(here, {value: d}, leaves):
                        total = total if part is None else add(total, part)
            assert total is not None
            return total

        return map_rows(next(iter(dots.values())), 1, build)

    def _contribute_narrow(self, leaf: ir.Value, rows: ir.Value) -> None:
        tape, element = self.experts.tape, _element(leaf)
        match _kind(leaf):
            case "slot":
                type_ = ir.RankedTensorType.get(dims(element.tensor), ir.F32Type.get())
                tape.contribute(element.tensor, SlotValuesOp(rows, self.plan.slots, self.plan.index, type_).out)
            case "scalar":
                tape.contribute(element.tensor, rows)
            case "expert":
                tape.contribute(element.tensor, group_sum(self.plan, rows, False, None, element.tensor))
            case kind:
                raise NoRule(f"an expert's output scaled by elements of kind {kind}")

    def _column_dots(self, columns: ir.Value) -> ir.Value:
        """For every row, the sum over columns of the token's gradient times the expert's vector, tensor<?x1xf32>.

        For all experts at once, as a product of tokens and vectors.
        """
        tape, f32 = self.experts.tape, ir.F32Type.get()
        experts = dims(columns)[0]
        weights = count_axis(tape.recall(columns))
        product = MatmulOp(self.d, [weights], [ir.RankedTensorType.get([DYNAMIC(), experts], f32)])
        block = fill_region(product.epilogue, [f32])
        with ir.InsertionPoint(block):
            yield_value(block.arguments[0])

        def build() -> ir.Value:
            return TakeOp(row(product.out), row(self.plan.index), self._slots_type()).out

        return self._row_values(map_rows(self.plan.index, dims(self.plan.index)[1], build))

    def _contribute_column(self, term: Term) -> None:
        whole = _element(term.element).tensor
        factor = None if term.coefficient is None else self._coefficient_rows(term.coefficient)
        self.experts.tape.contribute(whole, group_sum(self.plan, self.d, True, factor, whole))

    def _coefficient_rows(self, coefficient: Coefficient) -> ir.Value:
        """A coefficient for every row, tensor<?x1xf32>."""
        rows = self._row_values(self.experts.tape.recall(self.matmul.tokens))
        return map_rows(rows, 1, lambda: coefficient(self._replay()))


def _element(leaf: ir.Value) -> ElementOp:
    element: ElementOp = leaf.owner.opview
    return element


def _kind(leaf: ir.Value) -> str:
    return str(ir.StringAttr(_element(leaf).kind).value)
