"""Emits the kernels that gradients of experts are made of."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch_mlir import ir
from torch_mlir.dialects import tensor

from moec.dialect import GroupedMatmulCombineOp, GroupedMatmulOp, GroupSumOp, MapOp, WeightGradientOp
from moec.passes.gradients.formulas import rounded, row_sum, widened
from moec.passes.gradients.tape import DYNAMIC, Tape, row
from moec.passes.rewriting import dims, element_type, fill_region, flag, yield_value


@dataclass(frozen=True)
class Plan:
    """The sorted slots of a matmul, in backward."""

    index: ir.Value
    offsets: ir.Value
    slots: ir.Value
    slots_per_token: ir.Attribute


def plan_of(tape: Tape, matmul: ir.OpView) -> Plan:
    index = matmul.offsets.owner.operation.operands[0]
    offsets, slots = tape.recall(matmul.offsets), tape.recall(matmul.slots)
    return Plan(tape.recall(index), offsets, slots, matmul.slots_per_token)


Build = Callable[[Sequence[ir.Value]], dict[str, ir.Value]]
"""From accumulators to named f32 elements."""


def transposed_matmul(
    plan: Plan, lhs: ir.Value, gather: bool, weights: Sequence[ir.Value], build: Build
) -> dict[str, ir.Value]:
    """A grouped matmul by transposed weights whose results are what `build` names, rounded to the weights' dtype.

    Elements that are the same become one result.
    """
    element = element_type(weights[0])
    type_ = ir.RankedTensorType.get([DYNAMIC(), dims(weights[0])[2]], element)

    def create(results: int) -> GroupedMatmulOp:
        types = [type_] * results
        made = GroupedMatmulOp(lhs, plan.offsets, plan.slots, list(weights), flag(gather), plan.slots_per_token, types)
        made.operation.attributes["transposed"] = ir.UnitAttr.get()
        return made

    draft = create(1)
    block = fill_region(draft.epilogue, [ir.F32Type.get()] * len(weights))
    with ir.InsertionPoint(block):
        named = build(list(block.arguments))
        distinct = list(dict.fromkeys(named.values()))
        yield_value(*(rounded(value, element) for value in distinct))
    made = create(len(distinct))
    block.append_to(made.epilogue)
    draft.operation.erase()
    results = list(made.operation.results)
    return {name: results[distinct.index(value)] for name, value in named.items()}


def combined(
    plan: Plan, lhs: ir.Value, gather: bool, weights: ir.Value, scale: Callable[[ir.Value], ir.Value]
) -> ir.Value:
    """Rows times transposed weights, scaled and added up for each token; f32."""
    f32 = ir.F32Type.get()
    made = GroupedMatmulCombineOp(
        lhs, plan.index, plan.offsets, plan.slots, [weights], flag(gather), plan.slots_per_token,
        ir.RankedTensorType.get([DYNAMIC(), dims(weights)[2]], f32),
    )  # fmt: skip
    made.operation.attributes["transposed"] = ir.UnitAttr.get()
    for region, value in ((made.epilogue, scale), (made.finish, lambda total: total)):
        block = fill_region(region, [f32])
        with ir.InsertionPoint(block):
            yield_value(value(block.arguments[0]))
    return made.out


def beside(parts: Sequence[ir.Value]) -> ir.Value:
    """Rows, or the transposed matrices that they are multiplied by, beside each other along axis 1."""
    shape = dims(parts[0])
    shape[1] = sum(dims(part)[1] for part in parts)
    return tensor.concat(ir.RankedTensorType.get(shape, element_type(parts[0])), 1, list(parts))


def weight_gradient(plan: Plan, a: ir.Value, gather_a: bool, b: ir.Value, gather_b: bool, like: ir.Value) -> ir.Value:
    """The gradient of the weights `like`, in their type."""
    return WeightGradientOp(
        a, b, plan.offsets, plan.slots, flag(gather_a), flag(gather_b), plan.slots_per_token, like.type
    ).out


def group_sum(plan: Plan, a: ir.Value, gather: bool, factor: ir.Value | None, like: ir.Value) -> ir.Value:
    """The gradient of the experts' vectors `like`, in their type."""
    factors = [] if factor is None else [factor]
    return GroupSumOp(a, plan.offsets, plan.slots, factors, flag(gather), plan.slots_per_token, like.type).out


def sum_of_rows(rows: ir.Value) -> ir.Value:
    """Each row added up, tensor<?x1xf32>."""
    return map_rows(rows, 1, lambda: row_sum(widened(row(rows))))


def map_rows(like: ir.Value, width: int, build: Callable[[], ir.Value], element: ir.Type | None = None) -> ir.Value:
    """What `build` gives for each row, f32 tensors of `width`, rounded to `element` if that is given."""
    element = element or ir.F32Type.get()
    made = MapOp(like, ir.RankedTensorType.get([DYNAMIC(), width], element))
    with ir.InsertionPoint(made.body.blocks.append()):
        yield_value(rounded(build(), element))
    return made.out
