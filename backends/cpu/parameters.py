"""Which parameters a tensor consists of that is made of parameters alone.

Passes stack parameters (`tensor.concat` along the leading axis), take parts of them (`tensor.extract_slice` along the
leading axis), reshape them (`tensor.expand_shape`, `tensor.collapse_shape`) and quantise them.  Nothing of that happens
when a layer runs: it says where packing puts each parameter, and how.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch_mlir import ir

from moec.backends.base import unsupported

PARAMETERS = ("parameter", "buffer")
"""Roles of the arguments that are weights."""

RESHAPES = ("tensor.expand_shape", "tensor.collapse_shape")


@dataclass(frozen=True)
class Part:
    """`count` elements of a parameter of the layer's function, in row-major order.

    They begin at element `source` of the parameter and at element `begin` of the whole.
    """

    parameter: ir.Value
    begin: int
    source: int
    count: int
    quantize: Any = None
    """The `moe.quantize` whose codes the whole consists of here; the elements are those of its weights."""

    def within(self, first: int, count: int) -> Part | None:
        """What lies in elements [first, first + count) of the whole, numbered from there."""
        begin, end = max(self.begin, first), min(self.begin + self.count, first + count)
        if begin >= end:
            return None
        source = self.source + begin - self.begin
        return Part(self.parameter, begin - first, source, end - begin, self.quantize)


def elements(type_: Any) -> int:
    """How many elements a static tensor type has."""
    count = 1
    for axis in range(type_.rank):
        count *= int(type_.get_dim_size(axis))
    return count


def role(argument: Any) -> str:
    """What an argument of a layer's function is: "input", "parameter", "buffer", "saved" or "gradient"."""
    attributes = argument.owner.owner.operation.attributes["arg_attrs"][argument.arg_number]
    return str(ir.StringAttr(attributes["moe.role"]).value)


def is_parameter(value: ir.Value) -> bool:
    """Whether `parts` knows the value, and packing it leaves it as it is."""
    if isinstance(value.owner, ir.Block):
        return value.owner.owner.operation.name == "func.func" and role(value) in PARAMETERS
    operation = value.owner.operation
    if operation.name == "tensor.extract_slice" and _leading_slice(operation) is None:
        return False
    if operation.name in (*RESHAPES, "tensor.concat", "tensor.extract_slice"):
        return all(is_parameter(operand) for operand in operation.operands)
    return False


def captured(block: ir.Block) -> list[ir.Value]:
    """The tensors of tokens and the parameters that a region uses from outside, without order or repetition."""
    found: dict[ir.Value, None] = {}
    for op in block.operations:
        operation = op.operation
        for operand in operation.operands:
            if operation.name == "moe.row" or is_parameter(operand):
                found[operand] = None
        for region in operation.regions:
            for inner in region:
                found.update(dict.fromkeys(captured(inner)))
    return list(found)


def parts(value: ir.Value) -> list[Part]:
    """The parameters that `value` consists of, in order.  Raises Unsupported for anything else.

    Of the results of `moe.quantize`, codes are parts of what they are made from, and scales have none.
    """
    if isinstance(value.owner, ir.Block):
        if is_parameter(value):
            return [Part(value, 0, 0, elements(ir.RankedTensorType(value.type)))]
        raise unsupported("cpu", value.owner.owner, f"{value} is no parameter")
    operation = value.owner.operation
    if operation.name in RESHAPES:
        return parts(operation.operands[0])
    if operation.name == "moe.quantize":
        made = parts(operation.operands[0]) if value == operation.results[0] else []
        return [replace(part, quantize=operation) for part in made]
    if operation.name == "tensor.extract_slice" and (first := _leading_slice(operation)) is not None:
        found = [part.within(first, elements(value.type)) for part in parts(operation.operands[0])]
        return [part for part in found if part is not None]
    if operation.name == "tensor.concat" and ir.IntegerAttr(operation.attributes["dim"]).value == 0:
        stacked, begin = [], 0
        for operand in operation.operands:
            stacked += [replace(part, begin=begin + part.begin) for part in parts(operand)]
            begin += elements(operand.type)
        return stacked
    text = "only parameters, reshaped, or stacked or sliced along the leading axis, can be used so"
    raise unsupported("cpu", operation, text)


def _leading_slice(operation: ir.Operation) -> int | None:
    """The first element of a static slice along the leading axis; None for another slice."""
    whole, part = (ir.RankedTensorType(v.type) for v in (operation.operands[0], operation.results[0]))
    offsets, strides = (list(ir.DenseI64ArrayAttr(operation.attributes[f"static_{n}"])) for n in ("offsets", "strides"))
    dims = [[type_.get_dim_size(n) for n in range(1, type_.rank)] for type_ in (whole, part)]
    if len(operation.operands) > 1 or dims[0] != dims[1] or any(offsets[1:]) or any(s != 1 for s in strides):
        return None
    return int(offsets[0]) * (elements(whole) // int(whole.get_dim_size(0)))
