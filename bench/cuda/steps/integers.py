"""Operations on integers of some width, in int64; those of one bit are bool."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

Tensor = torch.Tensor

_BITS = {"i1": 1, "i8": 8, "i32": 32, "i64": 64, "index": 64}


def wrapped(values: Tensor, dtype: str) -> Tensor:
    """The lower bits of integers, as many as the element type has; other types as they are."""
    bits = _BITS.get(dtype, 64)
    if bits == 1:
        return (values & 1) != 0
    return values if bits == 64 else (values + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)


def unsigned(values: Tensor, dtype: str) -> Tensor:
    """Integers without a sign; those of 64 bits must have none."""
    bits = _BITS[dtype]
    return values.long() if bits == 64 else values.long() & (2**bits - 1)


def _trunci(source: str, target: str, a: Tensor) -> Tensor:
    return wrapped(a.long(), target)


def _extui(source: str, target: str, a: Tensor) -> Tensor:
    return wrapped(unsigned(a, source), target)


def _uitofp(source: str, target: str, a: Tensor) -> Tensor:
    wide = unsigned(a, source).double()
    return torch.where(wide < 0, wide + 2.0**64, wide)


def _divui(source: str, target: str, a: Tensor, b: Tensor) -> Tensor:
    return wrapped(torch.floor_divide(unsigned(a, source), unsigned(b, source)), target)


def _remui(source: str, target: str, a: Tensor, b: Tensor) -> Tensor:
    return wrapped(torch.remainder(unsigned(a, source), unsigned(b, source)), target)


def _wrapping(how: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    return lambda source, target, a, b: wrapped(how(a.long(), b.long()), target)


TYPED: Mapping[str, Callable[..., Tensor]] = {
    "arith.addi": _wrapping(torch.add),
    "arith.divui": _divui,
    "arith.extui": _extui,
    "arith.index_cast": _trunci,
    "arith.index_castui": _extui,
    "arith.muli": _wrapping(torch.mul),
    "arith.remui": _remui,
    "arith.subi": _wrapping(torch.sub),
    "arith.trunci": _trunci,
    "arith.uitofp": _uitofp,
}
"""By the element types of the first operand and of the result, and the operands."""
