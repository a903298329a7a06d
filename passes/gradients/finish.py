"""Gradients through what happens to a token's sum behind a combine."""

from torch_mlir import ir

from moec.dialect import GroupedMatmulCombineOp
from moec.passes.gradients.row_rules import NoRule
from moec.passes.rewriting import defining


def added_tensors(matmul: GroupedMatmulCombineOp) -> list[ir.Value]:
    """The tensors in token order that are added to the sum; nothing else but rounding may happen to it.

    All of them, and the sum, have the gradient of the result.
    """
    block = matmul.finish.blocks[0]
    found: list[ir.Value] = []
    if _collect(list(block.operations)[-1].operation.operands[0], found) != 1:
        raise NoRule("something else than a sum behind the experts")
    return found


def _collect(value: ir.Value, found: list[ir.Value]) -> int:
    """Collects the tensors; returns how often the sum itself is among the summands."""
    op = defining(value)
    if op is None:
        return 1
    if op.name in ("arith.extf", "arith.truncf"):
        return _collect(op.operands[0], found)
    if op.name == "arith.addf":
        return sum(_collect(operand, found) for operand in op.operands)
    if op.name == "moe.element" and ir.StringAttr(op.attributes["kind"]).value == "token":
        found.append(op.operands[0])
        return 0
    raise NoRule("something else than a sum behind the experts")
