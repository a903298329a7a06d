"""Operations on elements, in float64 and int64; roundings between them are left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from bench.cuda.steps.record import Operation

Tensor = torch.Tensor


class NoReference(Exception):
    """Nothing here says what an operation should give."""


_FLOAT: Mapping[int, Callable[[Tensor, Tensor], Tensor]] = {
    1: torch.eq, 2: torch.gt, 3: torch.ge, 4: torch.lt, 5: torch.le,
    6: lambda a, b: (a < b) | (a > b), 13: torch.ne,
}  # fmt: skip
"""By the numbers of `arith.cmpf`'s predicates."""
_INTEGER: Mapping[int, Callable[[Tensor, Tensor], Tensor]] = {
    0: torch.eq, 1: torch.ne, 2: torch.lt, 3: torch.le, 4: torch.gt, 5: torch.ge,
}  # fmt: skip

_SIMPLE: Mapping[str, Callable[..., Tensor]] = {
    "arith.addf": torch.add,
    "arith.addi": torch.add,
    "arith.andi": torch.bitwise_and,
    "arith.divf": torch.div,
    "arith.extf": lambda a: a,
    "arith.maximumf": torch.maximum,
    "arith.maxnumf": torch.fmax,
    "arith.minimumf": torch.minimum,
    "arith.minnumf": torch.fmin,
    "arith.mulf": torch.mul,
    "arith.muli": torch.mul,
    "arith.negf": torch.neg,
    "arith.ori": torch.bitwise_or,
    "arith.select": torch.where,
    "arith.sitofp": lambda a: a.double(),
    "arith.subf": torch.sub,
    "arith.subi": torch.sub,
    "arith.truncf": lambda a: a,
    "math.absf": torch.abs,
    "math.cos": torch.cos,
    "math.erf": torch.erf,
    "math.exp": torch.exp,
    "math.exp2": torch.exp2,
    "math.log": torch.log,
    "math.log1p": torch.log1p,
    "math.powf": torch.pow,
    "math.rsqrt": torch.rsqrt,
    "math.sin": torch.sin,
    "math.sqrt": torch.sqrt,
    "math.tanh": torch.tanh,
}

COMBINED: Mapping[str, Callable[[Tensor, list[int]], Tensor]] = {
    "arith.addf": lambda a, over: a.sum(over),
    "arith.addi": lambda a, over: a.sum(over),
    "arith.maximumf": lambda a, over: a.amax(over),
    "arith.minimumf": lambda a, over: a.amin(over),
}
"""What adding up by an operation gives, over some dimensions."""


def apply(op: Operation, operands: Sequence[Tensor]) -> Tensor:
    """The result of an operation on elements.  Raises NoReference for one that is not known."""
    if op.name in ("arith.cmpf", "arith.cmpi"):
        known = (_FLOAT if op.name == "arith.cmpf" else _INTEGER).get(op.attributes["predicate"])
        if known is not None:
            return known(*operands)
    if op.name not in _SIMPLE:
        raise NoReference(op.name)
    return _SIMPLE[op.name](*operands)


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
