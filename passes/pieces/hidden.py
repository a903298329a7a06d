"""Which part of an expert's program has a hidden dimension that can be cut, so that parts of it add up to the whole.

A linear that reads what earlier linears gave is cut along its inputs, and these along their outputs (Megatron-LM,
arXiv:1909.08053).  What lies between is elementwise, and what comes behind is linear: sums of its parts are its result.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch_mlir import ir

from moec.dialect.places import place
from moec.errors import DiagnosticError
from moec.passes.refusal import error
from moec.passes.rewriting import defining, dims, operations, terminator, users

ROWS, COLUMNS = 1, 2
"""Axes of an expert's matrices: outputs and inputs of a linear."""

_RESHAPES = ("linalg.broadcast", "tensor.collapse_shape", "tensor.expand_shape")
COPIED = ("arith.constant", "tensor.empty")
"""Operations that may stand there whole and cut."""


@dataclass
class Hidden:
    """The values of a program that are cut along their only axis, and the parameters with the axis that is cut.

    `inputs` are the results of the linears that are cut along their inputs.
    """

    block: ir.Block
    values: set[ir.Value] = field(default_factory=set)
    parameters: dict[ir.Value, int] = field(default_factory=dict)
    inputs: set[ir.Value] = field(default_factory=set)

    def cuts(self, op: ir.Operation) -> bool:
        """Whether an operation reads or gives cut values."""
        return any(result in self.values or result in self.inputs for result in op.results)


def find_hidden(block: ir.Block) -> Hidden:
    """The hidden dimension of an expert's program.  Raises DiagnosticError where there is none that can be cut."""
    found = Hidden(block)
    matvecs = [op.operation for op in operations(block, "linalg.matvec")]
    for op in matvecs:
        if _made_by_linears(op.operands[1], block):
            found.inputs.add(op.results[0])
    if not found.inputs:
        raise not_cut(terminator(block), "no linear reads what another one gives")
    for op in matvecs:
        if op.results[0] in found.inputs:
            _parameter(found, op, COLUMNS)
            _need(found, op.operands[1])
    for value in found.values:
        for user in users(value):
            if not found.cuts(user) and value.owner.operation.name not in COPIED:
                raise not_cut(user, f"`{user.name}` reads the hidden row as a whole")
    if not _is_sum(found, terminator(block).operands[0]):
        raise not_cut(terminator(block), "the result depends on no linear that is cut")
    return found


def parameter_axes(value: ir.Value, axis: int) -> Mapping[ir.Value, int]:
    """Along which axis each argument of the function is cut that a parameter cut along `axis` is made of."""
    op = defining(value)
    if op is None:
        return {value: axis}
    match op.name:
        case "moe.dequantize":
            codes, scales = op.operands
            whole = axis == COLUMNS and dims(scales)[2] == 1
            return {**parameter_axes(codes, axis), **({} if whole else parameter_axes(scales, axis))}
        case "moe.quantize":
            return parameter_axes(op.operands[0], axis)
        case "tensor.expand_shape":
            groups = [[ir.IntegerAttr(i).value for i in ir.ArrayAttr(g)] for g in op.attributes["reassociation"]]
            return parameter_axes(op.operands[0], next(i for i, group in enumerate(groups) if axis in group))
        case _:
            raise not_cut(op, f"a parameter goes through `{op.name}`")


def not_cut(op: ir.Operation, why: str) -> DiagnosticError:
    """The error for an expert whose hidden dimension cannot be cut."""
    fix = "leave the experts whole: shard them as ep, or leave their line out"
    return error("E0631", f"the hidden dimension cannot be cut: {why}", notes=[f"at {place(op.location)}"], fix=fix)


def _made_by_linears(value: ir.Value, block: ir.Block) -> bool:
    work, seen = [value], set()
    while work:
        op = defining(work.pop())
        if op is not None and op.block == block and op not in seen:
            if op.name == "linalg.matvec":
                return True
            seen.add(op)
            work += op.operands
    return False


def _parameter(found: Hidden, matvec: ir.Operation, axis: int) -> None:
    own = defining(matvec.operands[0])
    if own is None or own.name != "moe.own":
        raise not_cut(matvec, "the matrix of a linear is no parameter of the expert")
    if found.parameters.setdefault(own.operands[0], axis) != axis:
        raise not_cut(matvec, "two linears share a parameter")


def _need(found: Hidden, value: ir.Value) -> None:
    """Note that a vector is cut, and what it is made of."""
    if value in found.values:
        return
    op = defining(value)
    if op is None or len(dims(value)) != 1:
        raise not_cut(op or terminator(found.block), "a linear behind the hidden row reads the token, too")
    found.values.add(value)
    match op.name:
        case "linalg.matvec":
            if op.results[0] in found.inputs:
                raise not_cut(op, "more than two linears stand one behind the other")
            _parameter(found, op, ROWS)
            _need(found, op.operands[2])
        case "moe.own":
            if found.parameters.setdefault(op.operands[0], ROWS) != ROWS:
                raise not_cut(op, "two operations share a parameter")
        case "arith.constant":
            if not ir.DenseElementsAttr(op.attributes["value"]).is_splat:
                raise not_cut(op, "a constant has different values along it")
        case "tensor.empty":
            pass
        case "linalg.broadcast":
            if dims(op.operands[0]):
                raise not_cut(op, "a vector is repeated along it")
            _need(found, op.operands[1])
        case name if name.startswith(("arith.", "math.")):
            for operand in op.operands:
                _need(found, operand)
        case "moe.quantize_row":
            raise not_cut(op, "rows are rounded to int8 as a whole")
        case name:
            raise not_cut(op, f"`{name}` works on it as a whole")


def _is_sum(found: Hidden, value: ir.Value) -> bool:
    """Whether a value is the sum of what the parts give; raises where it depends on them otherwise."""
    op = defining(value)
    if op is None or op.block != found.block:
        return False
    if value in found.inputs:
        return True
    parts = [_is_sum(found, operand) for operand in op.operands]
    if not any(parts):
        return False
    if _linear(op, parts):
        return True
    if op.name in ("arith.addf", "arith.subf"):
        raise not_cut(op, "something is added to its sum (a bias), which every part would add")
    raise not_cut(op, f"the result is not linear in the last linear (`{op.name}`)")


def _linear(op: ir.Operation, parts: Sequence[bool]) -> bool:
    match op.name:
        case "arith.addf" | "arith.subf" | "arith.negf" | "arith.extf":
            return all(parts)
        case "arith.mulf":
            return sum(parts) == 1
        case "arith.divf":
            return list(parts) == [True, False]
        case name:
            return name in _RESHAPES
