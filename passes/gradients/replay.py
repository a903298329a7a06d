"""Emits an epilogue anew at the insertion point: on scalars in another epilogue, or on tensors in a row program."""

from collections.abc import Callable, Sequence

from torch_mlir import ir

from moec.dialect import ElementOp
from moec.passes.gradients.row_rules import NoRule
from moec.passes.rewriting import defining

Leaf = Callable[[ElementOp], ir.Value]
"""What an epilogue's `moe.element` becomes: the value with its stored type, of the replay's shape."""


class Replay:
    """Values of an epilogue, each emitted when it is asked for.

    `accumulators` stand for the block's arguments; `width` is None for scalars, else the length of the tensors.
    `leaves` are what the epilogue's elements became, where they were asked for.
    """

    def __init__(
        self, block: ir.Block, accumulators: Sequence[ir.Value | None], leaf: Leaf, width: int | None = None
    ) -> None:
        self.leaf = leaf
        self.width = width
        self.leaves: dict[ir.Value, ir.Value] = {}
        self._known: dict[ir.Value, ir.Value | None] = dict(zip(block.arguments, accumulators, strict=True))

    def value(self, old: ir.Value) -> ir.Value:
        """The value that stands for one of the epilogue's."""
        if old not in self._known:
            self._known[old] = self._make(old)
        found = self._known[old]
        if found is None:
            raise NoRule("an epilogue that needs its accumulator again")
        return found

    def _make(self, old: ir.Value) -> ir.Value:
        op = defining(old)
        if op is None:
            raise NoRule("an epilogue that reads an argument")
        if op.name == "moe.element":
            self.leaves[old] = self.leaf(op.opview)
            return self.leaves[old]
        if op.name == "arith.constant":
            return op.clone().results[0] if self.width is None else self._constant(op)
        operands = [self.value(operand) for operand in op.operands]
        attributes = {name: op.attributes[name] for name in op.attributes}
        types = [self._type(result.type) for result in op.results]
        return ir.Operation.create(op.name, types, operands, attributes).result

    def _constant(self, op: ir.Operation) -> ir.Value:
        type_ = self._type(op.results[0].type)
        splat = ir.DenseElementsAttr.get_splat(type_, op.attributes["value"])
        return ir.Operation.create("arith.constant", [type_], [], {"value": splat}).result

    def _type(self, scalar: ir.Type) -> ir.Type:
        return scalar if self.width is None else ir.RankedTensorType.get([self.width], scalar)


def result_of(region: ir.Region, number_: int = 0) -> ir.Value:
    """What an epilogue yields."""
    return list(region.blocks[0].operations)[-1].operation.operands[number_]


def through_rounding(value: ir.Value) -> ir.Value:
    """The value that another one is rounded or widened from."""
    op = defining(value)
    while op is not None and op.name in ("arith.truncf", "arith.extf"):
        value = op.operands[0]
        op = defining(value)
    return value
