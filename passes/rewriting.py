"""Small tools that every rewrite of the `moe` dialect needs."""

from collections.abc import Iterator, MutableMapping, Sequence
from typing import Any

from numpy.typing import NDArray
from torch_mlir import ir
from torch_mlir.dialects import tensor

from moec.dialect import YieldOp
from moec.dialect.functions import layer_function


def function(module: ir.Module) -> ir.Operation:
    """The function of a module that is its layer."""
    return layer_function(module)


def body(module: ir.Module) -> ir.Block:
    return function(module).regions[0].blocks[0]


def operations(block: ir.Block, *names: str) -> list[ir.OpView]:
    """The operations of a block with one of these names, as views; safe to erase while going through them."""
    return [op for op in block.operations if op.operation.name in names]


def walk(block: ir.Block) -> Iterator[ir.Operation]:
    """Every operation of a block and of the regions inside it, outermost first."""
    for op in block.operations:
        yield op.operation
        for region in op.operation.regions:
            for inner in region.blocks:
                yield from walk(inner)


def terminator(block: ir.Block) -> ir.Operation:
    return list(block.operations)[-1].operation


def users(value: ir.Value) -> list[ir.Operation]:
    return [use.owner.operation for use in value.uses]


def defining(value: ir.Value) -> ir.Operation | None:
    """The operation that a value is the result of, None for a block argument."""
    return None if isinstance(value, ir.BlockArgument) else value.owner.operation


def element_type(value: ir.Value) -> ir.Type:
    return ir.RankedTensorType(value.type).element_type


def dims(value: ir.Value) -> list[int]:
    """Static dimensions of a tensor; a dynamic one is negative."""
    return list(ir.RankedTensorType(value.type).shape)


def clone(op: ir.Operation, known: MutableMapping[ir.Value, ir.Value]) -> ir.Operation:
    """Copy an operation to the insertion point with its operands (also those inside its regions) replaced as known.

    The copy's results become known as those of the original.
    """
    copy = op.clone()
    inside = [inner for region in copy.regions for block in region.blocks for inner in walk(block)]
    for inner in (copy, *inside):
        for i, operand in enumerate(inner.operands):
            if operand in known:
                inner.operands[i] = known[operand]
    known.update(zip(op.results, copy.results, strict=True))
    return copy


def inline(block: ir.Block, arguments: Sequence[ir.Value]) -> list[ir.Value]:
    """Copy a block's operations to the insertion point; returns what its terminator gives, in terms of the copies."""
    known = dict(zip(block.arguments, arguments, strict=True))
    end = terminator(block)
    for op in block.operations:
        if op.operation != end:
            clone(op.operation, known)
    return [known.get(value, value) for value in end.operands]


def flag(value: object) -> ir.Attribute:
    """A boolean attribute that is itself never falsy (an ir.BoolAttr of false is, and builders then drop it)."""
    return ir.IntegerAttr.get(ir.IntegerType.get_signless(1), int(bool(value)))


def integer(value: int) -> ir.Attribute:
    return ir.IntegerAttr.get(ir.IntegerType.get_signless(64), value)


def fill_region(region: ir.Region, types: Sequence[ir.Type]) -> ir.Block:
    """Give an empty region its block."""
    return region.blocks.append(*types)


def yield_value(*values: ir.Value) -> None:
    YieldOp(list(values))


def count_axis(value: ir.Value) -> ir.Value:
    """tensor<...> with a leading axis of 1, as an expand_shape that packing resolves."""
    type_ = ir.RankedTensorType(value.type)
    grown = ir.RankedTensorType.get([1, *type_.shape], type_.element_type)
    groups = [[0, 1], *([i + 1] for i in range(1, type_.rank))]
    attributes = {
        "reassociation": ir.ArrayAttr.get([ir.ArrayAttr.get([integer(i) for i in g]) for g in groups]),
        "static_output_shape": ir.DenseI64ArrayAttr.get([1, *type_.shape]),
    }
    return ir.Operation.create("tensor.expand_shape", [grown], [value], attributes).result


def row_type(value: ir.Value) -> ir.Type:
    """The type of a tensor's row: all but its leading dimension."""
    return ir.RankedTensorType.get(dims(value)[1:], element_type(value))


def constant(values: NDArray[Any]) -> ir.Value:
    attribute = ir.DenseElementsAttr.get(values)
    return ir.Operation.create("arith.constant", [attribute.type], [], {"value": attribute}).result


def concat(*values: ir.Value) -> ir.Value:
    """Tensors behind each other along the leading axis."""
    shape = [sum(dims(value)[0] for value in values), *dims(values[0])[1:]]
    return tensor.concat(ir.RankedTensorType.get(shape, element_type(values[0])), 0, list(values))
