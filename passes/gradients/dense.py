"""Gradients of `moe.matmul`: the linears of routers, over all tokens."""

from torch_mlir import ir

from moec.dialect import DenseGroupSumOp, DenseWeightGradientOp, ElementOp, MapOp, MatmulOp
from moec.passes.gradients.formulas import stretched, widened
from moec.passes.gradients.programs import through_programs
from moec.passes.gradients.refusal import no_gradient
from moec.passes.gradients.replay import Replay, result_of, through_rounding
from moec.passes.gradients.reverse import reverse
from moec.passes.gradients.row_rules import NoRule
from moec.passes.gradients.tape import DYNAMIC, Tape, row
from moec.passes.rewriting import defining, dims, element_type, fill_region, operations, yield_value


def matmul_backward(tape: Tape, matmul: MatmulOp) -> None:
    """Hand the gradient of a matmul's result on to its weights, its operand and what its epilogue reads."""
    result = matmul.out
    read = through_programs(tape, result)
    with tape.emitting(matmul.operation):
        if read is not None:
            tape.contribute(result, read)
        d = tape.total(result)
        if d is None:
            return
        try:
            parts = _through_epilogue(tape, matmul, d)
        except NoRule as why:
            raise no_gradient(matmul.operation, f"through {why}") from why
        for weights, part in zip(matmul.weights, parts, strict=True):
            if part is not None:
                _through_product(tape, matmul, weights, part)


def _through_epilogue(tape: Tape, matmul: MatmulOp, d: ir.Value) -> list[ir.Value | None]:
    """The gradients of the accumulators; those of what the epilogue reads are contributed."""
    block = matmul.epilogue.blocks[0]
    for element in operations(block, "moe.element"):
        if element.tensor in tape.active:
            part = _map(tape, matmul, d, element)
            if part is not None:
                _contribute_element(tape, element, part)
    if through_rounding(result_of(matmul.epilogue)) in list(block.arguments) and len(block.arguments) == 1:
        return [d]
    return [_map(tape, matmul, d, number) for number in range(len(block.arguments))]


def _map(tape: Tape, matmul: MatmulOp, d: ir.Value, wanted: ElementOp | int) -> ir.Value | None:
    """The gradient of an accumulator or an element, for all tokens and columns; None where there is none."""
    width = dims(matmul.out)[1]
    made = MapOp(d, ir.RankedTensorType.get([DYNAMIC(), width], ir.F32Type.get()))
    inside = made.body.blocks.append()
    with ir.InsertionPoint(inside):
        arguments = list(matmul.epilogue.blocks[0].arguments)
        accumulators = [widened(row(tape.recall_accumulator(matmul, i))) for i in range(len(arguments))]
        replay = Replay(matmul.epilogue.blocks[0], accumulators, lambda e: _leaf(tape, e, width), width)
        value = replay.value(through_rounding(result_of(matmul.epilogue)))
        target = accumulators[wanted] if isinstance(wanted, int) else replay.leaves.get(wanted.element)
        before = [op.operation for op in inside.operations]
        part = None if target is None else reverse(before, {value: widened(row(d))}, [target])[0]
        if part is not None:
            yield_value(part)
    if part is None:
        made.operation.erase()
        return None
    return made.out


def _leaf(tape: Tape, element: ElementOp, width: int) -> ir.Value:
    whole = tape.recall(element.tensor)
    match ir.StringAttr(element.kind).value:
        case "token" | "row":
            return row(whole)
        case "token_scalar" | "scalar":
            return stretched(row(whole), width)
        case "column":
            return _column(tape, element)
        case _:
            return stretched(_column(tape, element), width)


def _column(tape: Tape, element: ElementOp) -> ir.Value:
    """The parameter that a column element reads, as a row program reads it."""
    op = defining(element.tensor)
    if op is None or op.name != "tensor.expand_shape":
        raise NoRule("an epilogue that reads a stacked parameter")
    return tape.recall(op.operands[0])


def _contribute_element(tape: Tape, element: ElementOp, part: ir.Value) -> None:
    kind = ir.StringAttr(element.kind).value
    if kind == "column":
        shape = ir.RankedTensorType.get(dims(element.tensor), element_type(element.tensor))
        tape.contribute(element.tensor, DenseGroupSumOp(part, shape).out)
    elif kind == "token":
        tape.contribute(element.tensor, part)
    else:
        raise NoRule(f"an epilogue that reads elements of kind {kind}")


def _through_product(tape: Tape, matmul: MatmulOp, weights: ir.Value, part: ir.Value) -> None:
    lhs = matmul.lhs
    if weights in tape.active:
        shape = ir.RankedTensorType.get(dims(weights), element_type(weights))
        tape.contribute(weights, DenseWeightGradientOp(part, tape.recall(lhs), shape).out)
    if lhs in tape.active:
        f32 = ir.F32Type.get()
        made = MatmulOp(part, [tape.recall(weights)], [ir.RankedTensorType.get(dims(lhs), f32)])
        made.operation.attributes["transposed"] = ir.UnitAttr.get()
        block = fill_region(made.epilogue, [f32])
        with ir.InsertionPoint(block):
            yield_value(block.arguments[0])
        tape.contribute(lhs, made.out)
