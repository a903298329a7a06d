"""Builds the backward of a layer from its forward function at kernel level, and says what forward has to save."""

from collections.abc import Iterable
from dataclasses import dataclass

from torch_mlir import ir
from torch_mlir.dialects import arith, func

from moec.dialect import TakeRowsOp
from moec.passes.finish import absorb_finish
from moec.passes.gradients.combine import Combine
from moec.passes.gradients.dense import matmul_backward
from moec.passes.gradients.experts import Experts
from moec.passes.gradients.finish import added_tensors
from moec.passes.gradients.grouped import plan_of
from moec.passes.gradients.names import Names
from moec.passes.gradients.programs import through_parameter, through_programs
from moec.passes.gradients.refusal import no_gradient, not_trained
from moec.passes.gradients.reverse import is_float
from moec.passes.gradients.row_rules import NoRule
from moec.passes.gradients.tape import Saved, Tape, add_rows, trainable
from moec.passes.rewriting import dims, element_type, operations, terminator, walk

SILENT = (
    "arith.constant", "moe.capacity", "moe.count", "moe.plan", "moe.route", "moe.map", "moe.take_rows", "func.return",
)  # fmt: skip
"""Operations that hand nothing on when they are reached: what has a gradient goes through them as a whole."""

GRADIENT = "moe.gradient"
"""The attribute of a result whose gradient is not like it: {element, its type, taken, the input by whose numbers its
rows are taken (`moe.take_rows`); "": it has them in order}."""


@dataclass(frozen=True)
class Backward:
    """A backward function, detached, and what forward has to save for it, in the order of its arguments."""

    function: ir.Operation
    saved: tuple[Saved, ...]


def build_backward(forward: ir.Operation, name: str) -> Backward:
    """The backward of `forward`, at the insertion point.  Raises DiagnosticError for what cannot be differentiated."""
    old = forward.regions[0].blocks[0]
    for op in walk(old):
        if op.name in ("moe.quantize", "moe.dequantize", "moe.quantize_row", "moe.quantize_rows"):
            raise not_trained(op, "quantised rows" if "row" in op.name else "quantised weights")
    draft = func.FuncOp(name, ir.FunctionType.get([a.type for a in old.arguments], []))
    block = draft.add_entry_block()
    with ir.InsertionPoint(block):
        prologue = arith.constant(ir.F32Type.get(), 0.0).owner
    known: dict[ir.Value, ir.Value] = dict(zip(old.arguments, block.arguments, strict=True))
    tape = Tape(forward, block, known, prologue, names=Names(forward))
    seeds = _seed(tape)
    wanted = trainable(forward)
    tape.active = _active(old, wanted)
    experts = Experts(tape, {}, {}, [])
    for op in reversed([op.operation for op in old.operations]):
        try:
            _step(experts, op)
        except NoRule as why:
            raise no_gradient(op, f"through {why}") from why
        experts.done.append(op)
    gradients = _arguments(experts, wanted)
    prologue.erase()
    function = _assemble(tape, draft, seeds, gradients, name)
    return Backward(function, tuple(tape.saved))


def _seed(tape: Tape) -> list[tuple[str, ir.Value]]:
    """Arguments for the gradients of the results of floats; (name, value) in order."""
    seeds = []
    results = terminator(tape.forward.regions[0].blocks[0]).operands
    for value, attributes in zip(results, tape.forward.attributes["res_attrs"], strict=True):
        if is_float(value):
            how = ir.DictAttr(attributes[GRADIENT]) if GRADIENT in attributes else None
            element = element_type(value) if how is None else ir.TypeAttr(how["element"]).value
            d = tape.block.add_argument(ir.RankedTensorType.get(dims(value), element), ir.Location.unknown())
            numbers = "" if how is None else str(ir.StringAttr(how["taken"]).value)
            tape.gradients.setdefault(value, []).append(_taken(tape, d, numbers) if numbers else d)
            seeds.append((f"d.{ir.StringAttr(attributes['moe.name']).value}", d))
    return seeds


def _taken(tape: Tape, d: ir.Value, numbers: str) -> ir.Value:
    """The rows of a gradient that an input of this name tells."""
    arguments = tape.forward.regions[0].blocks[0].arguments
    names = [str(ir.StringAttr(one["moe.name"]).value) for one in tape.forward.attributes["arg_attrs"]]
    source = tape.known[arguments[names.index(numbers)]]
    with ir.InsertionPoint(tape.block), tape.forward.location:
        return TakeRowsOp(d, source, d.type).out


def _active(block: ir.Block, wanted: Iterable[ir.Value]) -> set[ir.Value]:
    """The tensors of floats that depend on what gradients are computed for."""
    active = set(wanted)
    for op in (op.operation for op in block.operations):
        inside = [inner for region in op.regions for inner_block in region.blocks for inner in walk(inner_block)]
        for one in inside:  # a parameter is reshaped where an epilogue reads it
            if one.name.startswith("tensor.") and any(operand in active for operand in one.operands):
                active.update(one.results)
        if any(operand in active for one in (op, *inside) for operand in one.operands):
            active.update(result for result in op.results if is_float(result))
    return active


def _step(experts: Experts, op: ir.Operation) -> None:
    tape = experts.tape
    match op.name:
        case "moe.matmul":
            matmul_backward(tape, op.opview)
        case "moe.grouped_matmul":
            with tape.emitting(op):
                experts.grouped_backward(op.opview)
        case "moe.grouped_matmul_combine":
            with tape.emitting(op):
                d = tape.total(op.results[0])
                if d is not None:
                    for added in added_tensors(op.opview):
                        tape.contribute(added, d)
                    Combine(experts, op.opview, plan_of(tape, op.opview), d).run()
        case name if name not in SILENT and not name.startswith("tensor."):
            raise no_gradient(op, f"through {name}")


def _arguments(experts: Experts, wanted: dict[ir.Value, str]) -> list[tuple[str, ir.Value]]:
    """(name, gradient) of every argument that one arrives at."""
    tape = experts.tape
    found = []
    with ir.InsertionPoint(tape.block), tape.forward.location:
        for old, name in wanted.items():
            is_input = dims(old)[:1] == [ir.ShapedType.get_dynamic_size()]
            if is_input:
                part = through_programs(tape, old)
                if part is not None:
                    tape.contribute(old, part)
                d = _tokens(experts, old) if old in experts.tokens else _dense(tape, old)
            else:
                d = _of_parameter(tape, old, name)
            if d is not None:
                found.append((f"d.{name}", d))
    return found


def _dense(tape: Tape, x: ir.Value) -> ir.Value | None:
    """The gradient of an input that no expert reads, in its type."""
    d = tape.total(x)
    return d if d is None or element_type(d) == element_type(x) else add_rows([d], element_type(x))


def _tokens(experts: Experts, x: ir.Value) -> ir.Value:
    """The gradient of the tokens: what shared experts add, then the router, then the routed experts.

    So it is added up of the pieces of a layer that runs on a mesh, too.
    """
    dense = experts.tape.total(x)
    *shared, routed = experts.token_sums(x)
    total, *rest = (*shared, *([] if dense is None else [dense]), routed)
    for part in rest:
        total = arith.addf(part, total)
    element = element_type(x)
    if element != ir.F32Type.get():
        total = arith.truncf(ir.RankedTensorType.get(dims(x), element), total)
    return total


def _of_parameter(tape: Tape, parameter: ir.Value, name: str) -> ir.Value | None:
    whole = through_parameter(tape, parameter)
    parts = [*tape.gradients.pop(parameter, []), *([] if whole is None else [whole])]
    if len(parts) > 1:
        raise no_gradient(tape.forward, f"of the parameter {name}, which several linears or formulas read")
    return parts[0] if parts else None


def _assemble(
    tape: Tape, draft: func.FuncOp, seeds: list[tuple[str, ir.Value]], gradients: list[tuple[str, ir.Value]], name: str
) -> ir.Operation:
    """The function with its arguments in order and named, in place of the draft."""
    old = list(draft.arguments)
    count = len(tape.forward.regions[0].blocks[0].arguments)
    first_saved = count + len(seeds)
    ordered = [*old[:count], *old[first_saved:], *(value for _, value in seeds)]
    names = [*((saved.name, "saved") for saved in tape.saved), *((seed, "gradient") for seed, _ in seeds)]
    type_ = ir.FunctionType.get([a.type for a in ordered], [value.type for _, value in gradients])
    made = func.FuncOp(name, type_)
    made.arg_attrs = ir.ArrayAttr.get([*tape.forward.attributes["arg_attrs"], *(named(n, role) for n, role in names)])
    made.res_attrs = ir.ArrayAttr.get([named(n, "gradient") for n, _ in gradients])
    made.operation.attributes["moe.weights"] = ir.StringAttr.get("plain")
    block = made.add_entry_block()
    for before, after in zip(ordered, block.arguments, strict=True):
        before.replace_all_uses_with(after)
    results = [dict(zip(ordered, block.arguments, strict=True)).get(value, value) for _, value in gradients]
    for op in list(tape.block.operations):
        block.append(op)
    with ir.InsertionPoint(block):
        func.ReturnOp(results)
    draft.operation.erase()
    for combine in operations(block, "moe.grouped_matmul_combine"):
        absorb_finish(combine)
    return made.operation


def named(name: str, role: str) -> ir.DictAttr:
    return ir.DictAttr.get({"moe.name": ir.StringAttr.get(name), "moe.role": ir.StringAttr.get(role)})
