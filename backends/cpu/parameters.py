"""Which parameters a tensor consists of that is made of parameters alone.

Passes stack parameters (`tensor.concat` along the leading axis) and reshape them (`tensor.expand_shape`,
`tensor.collapse_shape`).  Nothing of that happens when a layer runs: it says where packing puts each parameter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch_mlir import ir

from moec.backends.base import unsupported

PARAMETERS = ("parameter", "buffer")
"""Roles of the arguments that are weights."""

RESHAPES = ("tensor.expand_shape", "tensor.collapse_shape")


@dataclass(frozen=True)
class Part:
    """A parameter of the layer's function and the element of the whole, in row-major order, at which it begins."""

    parameter: ir.Value
    begin: int


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
    """Whether `parts` knows the value."""
    if isinstance(value.owner, ir.Block):
        return value.owner.owner.operation.name == "func.func" and role(value) in PARAMETERS
    operation = value.owner.operation
    if operation.name in RESHAPES or operation.name == "tensor.concat":
        return all(is_parameter(operand) for operand in operation.operands)
    return False


def parts(value: ir.Value) -> list[Part]:
    """The parameters that `value` consists of, in order.  Raises Unsupported for anything else."""
    if isinstance(value.owner, ir.Block):
        if is_parameter(value):
            return [Part(value, 0)]
        raise unsupported("cpu", value.owner.owner, f"{value} is no parameter")
    operation = value.owner.operation
    if operation.name in RESHAPES:
        return parts(operation.operands[0])
    if operation.name == "tensor.concat" and ir.IntegerAttr(operation.attributes["dim"]).value == 0:
        found, begin = [], 0
        for operand in operation.operands:
            found += [Part(part.parameter, begin + part.begin) for part in parts(operand)]
            begin += elements(operand.type)
        return found
    raise unsupported("cpu", operation, "only parameters, reshaped or stacked along the leading axis, can be used so")
