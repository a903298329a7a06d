"""Which parameters the weights of kernels consist of.

Kernels read parameters where PyTorch has them.  A pass may have stacked some (`tensor.concat` along the leading axis,
as for shared experts that became routed ones): the caller then keeps these behind each other in one piece of memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch_mlir import ir

from moec.backends.base import unsupported
from moec.backends.cpu.parameters import elements, is_parameter, parts

Stack = tuple[int, ...]
"""Numbers of the parameters that lie behind each other, in order."""


def is_weight(value: ir.Value) -> bool:
    """Whether a value consists of parameters alone."""
    return is_parameter(value)


def stack_of(value: ir.Value, numbers: dict[ir.Value, int]) -> Stack:
    """The parameters of `value`; `numbers` are those of the function's.  Raises Unsupported unless each is whole."""
    found = parts(value)
    for part in found:
        if part.source or part.count != elements(ir.RankedTensorType(part.parameter.type)):
            raise unsupported("cuda", _owner(value), "only whole parameters can be stacked, not slices of them")
    return tuple(numbers[part.parameter] for part in found)


def all_stacks(of_programs: Iterable[Sequence[Stack]], function: ir.Operation) -> tuple[Stack, ...]:
    """Every stack that some program reads, in order.  Raises Unsupported where a parameter would have to lie in two
    places."""
    found = sorted({stack for stacks in of_programs for stack in stacks})
    numbers = [number for stack in found for number in stack]
    if len(set(numbers)) < len(numbers):
        raise unsupported("cuda", function, "a parameter is stacked with different ones in two places")
    return tuple(found)


def _owner(value: ir.Value) -> ir.Operation:
    owner = value.owner
    return owner.owner.operation if isinstance(owner, ir.Block) else owner.operation
