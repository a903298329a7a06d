"""Which parameters the weights of kernels consist of.

Kernels read parameters where PyTorch has them.  A pass may have stacked some (`tensor.concat` along the leading axis,
as for shared experts that became routed ones): the caller then keeps these behind each other in one piece of memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from torch_mlir import ir

from moec.backends.base import unsupported
from moec.backends.cpu.parameters import is_parameter
from moec.backends.cuda.kept import Kept
from moec.backends.cuda.shares import Experts, first_of, shares

ALIGN = 16
"""Of every stack, and of parameters of longer ones that are read alone, in bytes."""

Stack = tuple[int, ...]
"""Numbers of the parameters that lie behind each other, in order."""


def is_weight(value: ir.Value) -> bool:
    """Whether a value consists of parameters alone, or of their codes or scales."""
    made = _quantize(first_of(value)[0])
    return is_parameter(value if made is None else made.operands[0])


def place_of(
    value: ir.Value, tensors: Sequence[Kept], numbers: Mapping[tuple[ir.Value, Experts, str], int]
) -> tuple[Stack, int]:
    """The stack in which a weight lies, and how many bytes of it are before: 0 but for some experts of what is kept as
    a whole.  Raises Unsupported for those that are not aligned, and where `stack_of` does."""
    whole, first = first_of(value)
    kept_so = is_parameter(value) and all((one.parameter, one.experts, "floats") in numbers for one in shares(value))
    if whole == value or kept_so:
        return stack_of(value, numbers), 0
    stack = stack_of(whole, numbers)
    tensor = tensors[stack[0]]
    before = first * (tensor.bytes // tensor.dims[0])
    if before % ALIGN:
        raise unsupported("cuda", _owner(value), f"experts of a parameter that do not begin at {ALIGN} bytes")
    return stack, before


def stack_of(value: ir.Value, numbers: Mapping[tuple[ir.Value, Experts, str], int]) -> Stack:
    """The numbers of the tensors that `value` consists of: by parameter, experts and form (`kept.of_layer`).

    Raises Unsupported where one is not kept so: for some experts that are not all that are kept alike, and for a
    parameter that is read both as it is and quantised.
    """
    made, stack = _quantize(value), []
    form = "floats" if made is None else "codes" if value == made.results[0] else "scales"
    for share in shares(value if made is None else made.operands[0]):
        number = numbers.get((share.parameter, share.experts, form))
        if number is None and (share.parameter, share.experts, "codes") in numbers:
            raise unsupported("cuda", _owner(value), "a parameter is read both quantised and as it is")
        if number is None:
            fix = "give all experts of the group one format, or compile the layer for `cpu`"
            raise unsupported(
                "cuda", _owner(value), "some experts of a parameter are read in another way than others", fix
            )
        stack.append(number)
    return tuple(stack)


def _quantize(value: ir.Value) -> ir.Operation | None:
    """The `moe.quantize` that `value` is a result of."""
    owner = value.owner
    return None if isinstance(owner, ir.Block) or owner.operation.name != "moe.quantize" else owner.operation


def all_stacks(
    of_programs: Iterable[Sequence[Stack]], bytes_of: Sequence[int], function: ir.Operation
) -> tuple[Stack, ...]:
    """Every stack that some program reads, in order.

    A parameter of a longer stack may be read alone, too (as when a layer is trained whose shared experts became routed
    ones): it is where that stack has it.  Raises Unsupported where one would have to lie in two places, or be read
    where it is not aligned.

    bytes_of  of each parameter, by its number
    """
    found = sorted({stack for stacks in of_programs for stack in stacks})
    longer = [stack for stack in found if len(stack) > 1]
    numbers = [number for stack in longer for number in stack]
    if len(set(numbers)) < len(numbers):
        raise unsupported("cuda", function, "a parameter is stacked with different ones in two places")
    for stack in longer:
        for place, number in enumerate(stack):
            if (number,) in found and sum(bytes_of[one] for one in stack[:place]) % ALIGN:
                text = f"a parameter is read alone that is stacked where it is not aligned to {ALIGN} bytes"
                raise unsupported("cuda", function, text)
    return tuple(found)


def _owner(value: ir.Value) -> ir.Operation:
    owner = value.owner
    return owner.owner.operation if isinstance(owner, ir.Block) else owner.operation
