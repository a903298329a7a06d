"""The epilogue of a combine as a sum of terms: a number of the row times an element of the row.

What an expert gives is f(acc, ...) for the accumulators of its last linears, which are not saved.  Gradients go
through such a linear without them if f is a sum of `coefficient * element`, where a coefficient is the same for all
columns of a row (the routing weight, a sigmoid of one more linear, a constant): then the coefficient and the matrix
change places.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch_mlir import ir
from torch_mlir.dialects import arith

from moec.passes.gradients.formulas import number
from moec.passes.gradients.replay import Replay
from moec.passes.gradients.row_rules import NoRule
from moec.passes.rewriting import defining

NARROW = ("scalar", "slot", "expert", "token_scalar")
"""Kinds of elements that are the same for all columns of a row."""

Coefficient = Callable[[Replay], ir.Value]
"""Emits a coefficient by way of a replay of the epilogue; None stands for 1."""


@dataclass(frozen=True)
class Term:
    """coefficient * element; `element` is an accumulator (a block argument) or the result of a `moe.element`."""

    element: ir.Value
    coefficient: Coefficient | None
    narrow: frozenset[ir.Value]
    """The narrow elements that the coefficient is computed from."""

    def value(self, replay: Replay) -> ir.Value | None:
        return None if self.coefficient is None else self.coefficient(replay)


Terms = dict[ir.Value, Term]


def terms(value: ir.Value) -> Terms:
    """The terms of a value of an epilogue, by element.  Raises NoRule where it is no such sum."""
    op = defining(value)
    if op is None or (op.name == "moe.element" and not _is_narrow(op)):
        return {value: Term(value, None, frozenset())}
    if op.name in ("arith.extf", "arith.truncf"):
        return terms(op.operands[0])
    if op.name == "arith.negf":
        return _scaled(terms(op.operands[0]), lambda one: lambda replay: arith.negf(one(replay)), frozenset())
    if op.name in ("arith.addf", "arith.subf"):
        first, second = (terms(operand) for operand in op.operands)
        if op.name == "arith.subf":
            second = _scaled(second, lambda one: lambda replay: arith.negf(one(replay)), frozenset())
        return _sum(first, second)
    if op.name == "arith.mulf":
        a, b = op.operands
        wide, narrow = (a, b) if narrow_elements(b) is not None else (b, a)
        return _times(wide, narrow, arith.mulf)
    if op.name == "arith.divf":
        a, b = op.operands
        return _times(a, b, arith.divf)
    raise NoRule("an expert whose output is not linear in its last linear")


def narrow_elements(value: ir.Value) -> frozenset[ir.Value] | None:
    """The elements that a value of an epilogue is computed from, if all of them are narrow."""
    op = defining(value)
    if op is None:
        return None
    if op.name == "moe.element":
        return frozenset([value]) if _is_narrow(op) else None
    found: frozenset[ir.Value] = frozenset()
    for operand in op.operands:
        more = narrow_elements(operand)
        if more is None:
            return None
        found |= more
    return found


def _is_narrow(op: ir.Operation) -> bool:
    return ir.StringAttr(op.attributes["kind"]).value in NARROW


def _times(wide: ir.Value, factor: ir.Value, combine: Callable[[ir.Value, ir.Value], ir.Value]) -> Terms:
    narrow = narrow_elements(factor)
    if narrow is None:
        raise NoRule("an expert whose output is not linear in its last linear")

    def scale(one: Coefficient | None) -> Coefficient:
        if one is None and combine is arith.mulf:
            return lambda replay: replay.value(factor)
        before = one or _one
        return lambda replay: combine(before(replay), replay.value(factor))

    found = terms(wide)
    return {key: Term(key, scale(term.coefficient), term.narrow | narrow) for key, term in found.items()}


def _one(replay: Replay) -> ir.Value:
    type_ = ir.F32Type.get() if replay.width is None else ir.RankedTensorType.get([replay.width], ir.F32Type.get())
    return number(1.0, type_)


def _scaled(found: Terms, by: Callable[[Coefficient], Coefficient], narrow: frozenset[ir.Value]) -> Terms:
    return {key: Term(key, by(term.coefficient or _one), term.narrow | narrow) for key, term in found.items()}


def _sum(first: Terms, second: Terms) -> Terms:
    found = dict(first)
    for key, term in second.items():
        if key in found:
            one, two = found[key].coefficient or _one, term.coefficient or _one
            both = found[key].narrow | term.narrow
            found[key] = Term(key, lambda replay, one=one, two=two: arith.addf(one(replay), two(replay)), both)  # type: ignore[misc]
        else:
            found[key] = term
    return found
