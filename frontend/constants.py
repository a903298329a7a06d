"""Arithmetic on numbers that are known while checking."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from moec.diagnostics import Label, Span
from moec.frontend.graph import Constant, DType
from moec.frontend.mistake import Mistake

LARGEST = 2**63
"""Whole numbers stay below this."""

_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
}
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def fold(op: str, a: Constant, b: Constant, span: Span, places: tuple[Span, Span]) -> Constant:
    """The value of `a op b`; raises Mistake if it has none."""
    left, right = a.value, b.value
    if op in ("and", "or"):
        if isinstance(left, bool) and isinstance(right, bool):
            return Constant(left and right if op == "and" else left or right)
        raise _kinds(op, a, b, span, places, "true or false")
    if op in ("==", "!=") and _comparable(a, b):
        return Constant(_COMPARE[op](left, right))
    if not (_is_number(a) and _is_number(b)):
        raise _kinds(op, a, b, span, places, "numbers")
    if op in _COMPARE:
        return Constant(_COMPARE[op](left, right))
    if op in ("//", "%") and not (isinstance(left, int) and isinstance(right, int)):
        raise _kinds(op, a, b, span, places, "whole numbers")
    try:
        result = _ARITHMETIC[op](left, right)
    except ZeroDivisionError:
        raise Mistake("E0502", f"`{op}` divides by zero", places[1], "this is 0") from None
    except OverflowError:
        raise Mistake("E0502", f"`{op}` gives a number that is too large", span) from None
    return bounded(result, span)


def bounded(number: int | float, span: Span) -> Constant:
    """A constant, if it is not too large; raises Mistake if it is."""
    if isinstance(number, int) and abs(number) >= LARGEST:
        raise Mistake("E0502", "this whole number is too large", span, "2^63 or more")
    return Constant(number)


def negated(a: Constant, span: Span) -> Constant:
    """-a; raises Mistake if a is not a number."""
    if not _is_number(a) or isinstance(a.value, DType):
        raise Mistake("E0302", "`-` takes a number", span, f"this is {a.kind}, {a}")
    return Constant(-a.value)


def _is_number(a: Constant) -> bool:
    return isinstance(a.value, int | float) and not isinstance(a.value, bool)


def _comparable(a: Constant, b: Constant) -> bool:
    return type(a.value) is type(b.value) or (_is_number(a) and _is_number(b))


def _kinds(op: str, a: Constant, b: Constant, span: Span, places: tuple[Span, Span], wanted: str) -> Mistake:
    return Mistake(
        "E0302",
        f"`{op}` takes {wanted}",
        span,
        also=[Label(place, f"this is {one.kind}, {one}") for one, place in zip((a, b), places, strict=True)],
    )
