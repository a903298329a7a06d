"""Operations on elements, in float64 and int64; roundings between them are left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce

import torch

from bench.cuda.steps.integers import TYPED, wrapped
from bench.cuda.steps.record import Operation, Value

Tensor = torch.Tensor


class NoReference(Exception):
    """Nothing here says what an operation should give."""


def _unordered(a: Tensor, b: Tensor) -> Tensor:
    return a.isnan() | b.isnan()


def _unsigned(a: Tensor) -> Tensor:
    """Numbers in the order that these have without a sign."""
    return a.long() ^ -(2**63)


_FLOAT: Mapping[int, Callable[[Tensor, Tensor], Tensor]] = {
    0: lambda a, b: a.isnan() & (a == b),
    1: torch.eq, 2: torch.gt, 3: torch.ge, 4: torch.lt, 5: torch.le,
    6: lambda a, b: (a < b) | (a > b), 7: lambda a, b: ~_unordered(a, b),
    8: lambda a, b: ~((a < b) | (a > b)), 9: lambda a, b: ~(a <= b), 10: lambda a, b: ~(a < b),
    11: lambda a, b: ~(a >= b), 12: lambda a, b: ~(a > b), 13: torch.ne, 14: _unordered,
    15: lambda a, b: ~(a.isnan() & (a == b)),
}  # fmt: skip
"""By the numbers of `arith.cmpf`'s predicates."""
_INTEGER: Mapping[int, Callable[[Tensor, Tensor], Tensor]] = {
    0: torch.eq, 1: torch.ne, 2: torch.lt, 3: torch.le, 4: torch.gt, 5: torch.ge,
    6: lambda a, b: _unsigned(a) < _unsigned(b), 7: lambda a, b: _unsigned(a) <= _unsigned(b),
    8: lambda a, b: _unsigned(a) > _unsigned(b), 9: lambda a, b: _unsigned(a) >= _unsigned(b),
}  # fmt: skip

SIMPLE: Mapping[str, Callable[..., Tensor]] = {
    "arith.addf": torch.add,
    "arith.andi": torch.bitwise_and,
    "arith.divf": torch.div,
    "arith.divsi": lambda a, b: torch.div(a, b, rounding_mode="trunc"),
    "arith.extf": lambda a: a,
    "arith.extsi": lambda a: -a.long() if a.dtype == torch.bool else a,
    "arith.fptosi": lambda a: a.trunc().long(),
    "arith.maximumf": torch.maximum,
    "arith.maxnumf": torch.fmax,
    "arith.maxsi": torch.maximum,
    "arith.minimumf": torch.minimum,
    "arith.minnumf": torch.fmin,
    "arith.minsi": torch.minimum,
    "arith.mulf": torch.mul,
    "arith.negf": torch.neg,
    "arith.ori": torch.bitwise_or,
    "arith.remsi": torch.fmod,
    "arith.select": torch.where,
    "arith.sitofp": lambda a: a.double(),
    "arith.subf": torch.sub,
    "arith.truncf": lambda a: a,
    "arith.xori": torch.bitwise_xor,
    "math.absf": torch.abs,
    "math.ceil": torch.ceil,
    "math.cos": torch.cos,
    "math.erf": torch.erf,
    "math.exp": torch.exp,
    "math.exp2": torch.exp2,
    "math.expm1": torch.expm1,
    "math.floor": torch.floor,
    "math.fma": lambda a, b, c: a * b + c,
    "math.log": torch.log,
    "math.log1p": torch.log1p,
    "math.log2": torch.log2,
    "math.powf": torch.pow,
    "math.rsqrt": torch.rsqrt,
    "math.sin": torch.sin,
    "math.sqrt": torch.sqrt,
    "math.tanh": torch.tanh,
}

_COMBINED: Mapping[str, Callable[[Tensor, list[int]], Tensor]] = {
    "arith.addf": lambda a, over: a.sum(over),
    "arith.addi": lambda a, over: a.sum(over),
    "arith.maximumf": lambda a, over: a.amax(over),
    "arith.minimumf": lambda a, over: a.amin(over),
}


def combined(op: Operation, terms: Tensor, over: list[int], values: Sequence[Value]) -> Tensor:
    """What an operation gives that combines all terms along some dimensions, one after the other."""
    if op.name in _COMBINED:
        return wrapped(_COMBINED[op.name](terms, over), values[op.results[0]].dtype)
    kept = [axis for axis in range(terms.dim()) if axis not in over]
    first, *others = terms.permute(*over, *kept).flatten(0, len(over) - 1).unbind(0)
    return reduce(lambda left, right: apply(op, [left, right], values), others, first)


def apply(op: Operation, operands: Sequence[Tensor], values: Sequence[Value]) -> Tensor:
    """The result of an operation on elements.  Raises NoReference for one that is not known.

    values  of the function: they say how wide integers are
    """
    if op.name in TYPED:
        return TYPED[op.name](values[op.operands[0]].dtype, values[op.results[0]].dtype, *operands)
    if op.name in ("arith.cmpf", "arith.cmpi"):
        known = (_FLOAT if op.name == "arith.cmpf" else _INTEGER).get(op.attributes["predicate"])
        if known is not None:
            return known(*operands)
    if op.name not in SIMPLE:
        raise NoReference(op.name)
    return SIMPLE[op.name](*operands)


def constant(op: Operation, shape: Sequence[int] | None, like: torch.device) -> Tensor:
    """The value of an `arith.constant`."""
    value = op.attributes.get("value")
    if value is None:
        raise NoReference(op.name)
    elements = [float(one) if isinstance(one, str) else one for one in (value if isinstance(value, list) else [value])]
    exact = torch.float64 if any(isinstance(one, float) for one in elements) else torch.int64
    if all(isinstance(one, bool) for one in elements):
        exact = torch.bool
    made = torch.tensor(elements, dtype=exact, device=like)
    return made.reshape(()).expand(tuple(shape or ())) if len(elements) == 1 else made.reshape(tuple(shape or ()))
