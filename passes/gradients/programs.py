"""Gradients through the row programs over tokens: routers, and what auxiliary losses are computed from."""

from torch_mlir import ir

from moec.dialect import DenseGroupSumOp, MapOp
from moec.passes.gradients.formulas import add, collapse, flat, unflat, widened
from moec.passes.gradients.refusal import no_gradient
from moec.passes.gradients.reverse import reverse
from moec.passes.gradients.row_rules import NoRule
from moec.passes.gradients.tape import DYNAMIC, Tape, row
from moec.passes.rewriting import clone, dims, element_type, terminator, users, walk, yield_value

PROGRAMS = ("moe.route", "moe.map")


def through_programs(tape: Tape, leaf: ir.Value) -> ir.Value | None:
    """The gradient of a tensor in token order by all programs that read it, f32 of its shape; None: none arrives.

    One map for all of them, so that what they have in common is computed once.
    """
    programs = _readers(tape, leaf)
    if not programs:
        return None
    shape = dims(leaf)
    with tape.emitting(programs[0]):
        return _emit(tape, leaf, programs, ir.RankedTensorType.get(shape, ir.F32Type.get()), is_parameter=False)


def through_parameter(tape: Tape, parameter: ir.Value) -> ir.Value | None:
    """The gradient of a parameter that programs read whole, in its type; None: none arrives."""
    programs = _readers(tape, parameter)
    if not programs:
        return None
    size = 1
    for n in dims(parameter):
        size *= n
    f32 = ir.F32Type.get()
    with tape.emitting(programs[0]):
        rows = _emit(tape, parameter, programs, ir.RankedTensorType.get([DYNAMIC(), size], f32), is_parameter=True)
        if rows is None:
            return None
        total = DenseGroupSumOp(rows, ir.RankedTensorType.get([1, size], element_type(parameter))).out
        return unflat(collapse(total, [[0, 1]], [size]), dims(parameter))


def _readers(tape: Tape, leaf: ir.Value) -> list[ir.Operation]:
    """The programs that read a value and whose own results have gradients."""
    found = []
    for op in tape.forward.regions[0].blocks[0].operations:
        if op.operation.name in PROGRAMS and _seeded(tape, op.operation) and _reads(op.operation, leaf):
            found.append(op.operation)
    return found


def _value(program: ir.Operation) -> ir.Value:
    """The result that has a gradient: a router's weight, a map's only result."""
    return program.results[-1]


def _seeded(tape: Tape, program: ir.Operation) -> bool:
    return bool(tape.gradients.get(_value(program)))


def _reads(program: ir.Operation, leaf: ir.Value) -> bool:
    block = program.regions[0].blocks[0]
    own = program.name == "moe.route" and program.operands[0] == leaf and bool(users(block.arguments[0]))
    return own or any(leaf in list(op.operands) for op in walk(block))


def _emit(
    tape: Tape, leaf: ir.Value, programs: list[ir.Operation], type_: ir.Type, *, is_parameter: bool
) -> ir.Value | None:
    x = tape.forward.regions[0].blocks[0].arguments[0]
    made = MapOp(tape.recall(x), type_)
    block = made.body.blocks.append()
    with ir.InsertionPoint(block):
        total: ir.Value | None = None
        for program in programs:
            try:
                part = _gradient(tape, leaf, program, block, is_parameter)
            except NoRule as why:
                raise no_gradient(program, f"through {why}") from why
            total = total if part is None else add(total, part)
        if total is not None:
            yield_value(flat(total) if is_parameter else total)
    if total is None:
        made.operation.erase()
        return None
    return made.out


def _gradient(
    tape: Tape, leaf: ir.Value, program: ir.Operation, block: ir.Block, is_parameter: bool
) -> ir.Value | None:
    """The gradient of the leaf's row by one program, whose operations are repeated first."""
    old = program.regions[0].blocks[0]
    end = terminator(old)
    known: dict[ir.Value, ir.Value] = {}
    leaves: list[ir.Value] = [tape.recall(leaf)] if is_parameter else []
    begin = len(list(block.operations))
    if program.name == "moe.route":
        known[old.arguments[0]] = row(tape.recall(program.operands[0]))
        known[end.operands[0]] = row(tape.recall(program.results[0]))  # what was chosen need not be chosen again
        if program.operands[0] == leaf:
            leaves.append(known[old.arguments[0]])
    for op in (op.operation for op in old.operations):
        if op == end or any(result in known for result in op.results):
            continue
        inside = [operand for inner in (op, *_within(op)) for operand in inner.operands]
        for operand in inside:
            if operand not in known and _is_outside(operand, program):
                known[operand] = tape.recall(operand)
        copy = clone(op, known)
        if op.name == "moe.row" and op.operands[0] == leaf:
            leaves.append(copy.results[0])
    seed: ir.Value | None = None
    for part in tape.gradients[_value(program)]:
        seed = add(seed, widened(row(part)))
    result = known.get(end.operands[-1], end.operands[-1])
    operations = [op.operation for op in list(block.operations)[begin:]]
    assert seed is not None
    total: ir.Value | None = None
    for part in reverse(operations, {result: seed}, leaves):
        total = total if part is None else add(total, part)
    return total


def _within(op: ir.Operation) -> list[ir.Operation]:
    return [inner for region in op.regions for block in region.blocks for inner in walk(block)]


def _is_outside(value: ir.Value, program: ir.Operation) -> bool:
    """Whether a value is one of the function's, not of the program."""
    if isinstance(value, ir.BlockArgument):
        return bool(value.owner == program.block)
    return bool(value.owner.operation.block == program.block)
