"""Numbers of layouts and meshes: whole ones, and those with a unit."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from math import isfinite

from moec.diagnostics import did_you_mean
from moec.frontend import ast
from moec.frontend.evaluate import Evaluator
from moec.frontend.layouts.conditions import number_of
from moec.frontend.mistake import Mistake
from moec.frontend.units import TYPICAL, kind_of

LARGEST = 1e18


def whole(expr: ast.Expr, constants: Evaluator, code: str, what: str, low: int, high: int) -> int:
    """A whole number in [low, high].  Raises Mistake (`code`) and UnknownNumber."""
    number = number_of(expr, constants, code, what)
    if not isinstance(number, int) or not low <= number <= high:
        raise Mistake(code, f"{what} must be a whole number from {low:,} to {high:,}", expr.span, f"this is {number:,}")
    return number


def measured(
    expr: ast.Expr, units: Mapping[str, float], constants: Evaluator, code: str, what: str, bare: bool = False
) -> float:
    """A number above 0 in one of these units; `bare`: it may go without one.

    Raises Mistake (`code`) and UnknownNumber.
    """
    listed = ", ".join(f"`{unit}`" for unit in units)
    if not isinstance(expr, ast.Quantity):
        number = number_of(expr, constants, code, what)
        if not bare:
            unit = next(one for one in TYPICAL if one in units)
            note = [f"its units are {listed}"]
            fix = f"write its unit, as in `{expr.span.text} {unit}`"
            raise Mistake(code, f"{what} has a unit", expr.span, "its unit is missing", notes=note, fix=fix)
    elif expr.unit in units:
        finite = expr.number if isfinite(expr.number) else LARGEST + 1
        number = float(Fraction(str(finite)) * Fraction(str(units[expr.unit])))  # 50 us are 5e-05 s, to the last bit
    else:
        raise Mistake(
            code,
            f"{what} is {kind_of(next(iter(units)))}",
            expr.span,
            f"this is {kind_of(expr.unit)}",
            notes=[f"its units are {listed}"],
            fix=did_you_mean(expr.unit, units, None),
        )
    if not 0 < number <= LARGEST:
        raise Mistake(code, f"{what} is above 0, and at most {LARGEST:g}", expr.span, f"this is {number:g}")
    return float(number)
