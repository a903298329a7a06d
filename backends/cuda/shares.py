"""Which experts of which parameters a tensor consists of."""

from __future__ import annotations

from dataclasses import dataclass

from torch_mlir import ir

from moec.backends.base import unsupported
from moec.backends.cpu.parameters import elements, parts

Experts = tuple[int, ...] | None
"""Numbers of experts, ascending; None: all."""


@dataclass(frozen=True)
class Share:
    """Experts of one parameter that lie behind each other in a tensor."""

    parameter: ir.Value
    experts: Experts


def shares(value: ir.Value) -> list[Share]:
    """The parameters, or some of their experts, that `value` puts behind each other.  Raises Unsupported for others."""
    found: list[tuple[ir.Value, list[int]]] = []
    for part in parts(value):
        type_ = ir.RankedTensorType(part.parameter.type)
        each = elements(type_) // max(1, int(type_.get_dim_size(0)) if type_.rank else 1)
        if not each or part.source % each or part.count % each:
            owner = value.owner
            where = owner.owner if isinstance(owner, ir.Block) else owner
            raise unsupported(
                "cuda", where.operation, "a parameter of which a part is read that is not of whole experts"
            )
        if not found or found[-1][0] != part.parameter:
            found.append((part.parameter, []))
        first = part.source // each
        found[-1][1].extend(range(first, first + part.count // each))
    return [Share(parameter, _experts(parameter, numbers)) for parameter, numbers in found]


def first_of(value: ir.Value) -> tuple[ir.Value, int]:
    """A value, or what it is a slice of along the leading axis, and which element there it begins with."""
    if isinstance(value.owner, ir.Block) or value.owner.operation.name != "tensor.extract_slice":
        return value, 0
    op = value.owner.operation
    return op.operands[0], next(iter(ir.DenseI64ArrayAttr(op.attributes["static_offsets"])))


def _experts(parameter: ir.Value, numbers: list[int]) -> Experts:
    type_ = ir.RankedTensorType(parameter.type)
    count = int(type_.get_dim_size(0)) if type_.rank else 1
    return None if numbers == list(range(count)) else tuple(numbers)
