"""Parameters of another size, and what is made of them alone: codes and scales, reshapes."""

from collections.abc import Callable
from dataclasses import dataclass, field

from torch_mlir import ir

from moec.passes.pieces.draft import Draft, outside
from moec.passes.pieces.hidden import COPIED, Hidden, not_cut
from moec.passes.pieces.parts import cannot_cut
from moec.passes.rewriting import clone, defining, dims, element_type, fill_region, row_type, terminator, yield_value
from moec.passes.row_matmuls import inside

Leaf = Callable[[ir.Value], ir.Value]
"""From an argument of the layer's function, a parameter, to what stands for it in a piece."""


@dataclass
class Resizing:
    """Repeats operations on parameters for those that `leaf` gives, whatever their sizes."""

    leaf: Leaf
    known: dict[ir.Value, ir.Value] = field(default_factory=dict)

    def take(self, value: ir.Value) -> ir.Value:
        """What stands for a tensor made of parameters alone, at the insertion point."""
        if value not in self.known:
            op = defining(value)
            if op is None:
                self.known[value] = self.leaf(value)
            else:
                for operand in op.operands:
                    self.take(operand)
                self._repeat(op)
        return self.known[value]

    def _repeat(self, op: ir.Operation) -> None:
        before, now = dims(op.operands[0]), dims(self.known[op.operands[0]])
        shapes = _shapes(op, before, now)
        copy = clone(op, self.known)
        for result, shape in zip(copy.results, shapes, strict=True):
            result.set_type(ir.RankedTensorType.get(shape, element_type(result)))
        if op.name == "tensor.expand_shape":
            copy.attributes["static_output_shape"] = ir.DenseI64ArrayAttr.get(shapes[0])


def _shapes(op: ir.Operation, before: list[int], now: list[int]) -> list[list[int]]:
    """The shapes of an operation's results when its first operand's shape is another."""
    match op.name:
        case "moe.quantize":
            groups = dims(op.results[1])[2] * now[2]
            if groups % before[2]:
                raise not_cut(op, "groups of weights that share a scale would be cut apart")
            return [now, [*now[:2], groups // before[2]]]
        case "moe.dequantize":
            return [now]
        case "tensor.expand_shape":
            return [_expanded(op, before, now)]
        case _:
            raise cannot_cut(op, f"an expert's parameters go through {op.name}")


def _expanded(op: ir.Operation, before: list[int], now: list[int]) -> list[int]:
    shape = dims(op.results[0])
    for axis, group in enumerate(ir.ArrayAttr(op.attributes["reassociation"])):
        if before[axis] != now[axis]:
            inside = [ir.IntegerAttr(i).value for i in ir.ArrayAttr(group)]
            whole = [i for i in inside if shape[i] == before[axis]]
            if not whole:
                raise not_cut(op, "an axis of a parameter is both cut and split")
            shape[whole[0]] = now[axis]
    return shape


def captured(draft: Draft, block: ir.Block, resizing: Resizing) -> dict[ir.Value, ir.Value]:
    """What stands for the values that an expert's program reads from around it, at the insertion point."""
    known: dict[ir.Value, ir.Value] = {}
    for op in block.operations:
        for value in outside(op.operation):
            if op.operation.name == "moe.own":
                known[value] = resizing.take(value)
            elif not inside(value, block):
                known[value] = draft.take(value)
    return known


def fill(region: ir.Region, old: ir.Block, known: dict[ir.Value, ir.Value], hidden: Hidden, ways: int) -> None:
    """Give an empty region the program of another, whose hidden dimension is cut into `ways`."""
    block = fill_region(region, [a.type for a in old.arguments])
    known |= dict(zip(old.arguments, block.arguments, strict=True))
    cut: dict[ir.Value, ir.Value] = {}
    end = terminator(old)
    with ir.InsertionPoint(block), end.location:
        for op in (op.operation for op in old.operations):
            if any(result in hidden.values for result in op.results):
                _cut(op, {**known, **cut}, cut, ways)
            if op != end and (op.name in COPIED or not any(result in hidden.values for result in op.results)):
                joins = any(result in hidden.inputs for result in op.results)
                copy = clone(op, {**known, op.operands[1]: cut[op.operands[1]]} if joins else known)
                known |= dict(zip(op.results, copy.results, strict=True))
                if op.name == "moe.own":
                    copy.results[0].set_type(row_type(copy.operands[0]))
        yield_value(*(known.get(value, value) for value in end.operands))


def _cut(op: ir.Operation, known: dict[ir.Value, ir.Value], cut: dict[ir.Value, ir.Value], ways: int) -> None:
    """Repeat an operation whose result, a vector, is cut."""
    copy = clone(op, known)
    (result,) = copy.results
    type_ = ir.RankedTensorType.get([dims(op.results[0])[0] // ways], element_type(result))
    if op.name == "arith.constant":
        copy.attributes["value"] = ir.DenseElementsAttr.get_splat(
            type_, ir.DenseElementsAttr(op.attributes["value"]).get_splat_value()
        )
    result.set_type(type_)
    cut[op.results[0]] = result
