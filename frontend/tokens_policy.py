"""Reads `tokens dropless` and `tokens capacity(...)`."""

from __future__ import annotations

from typing import Literal, cast

from moec.diagnostics import Collector, did_you_mean
from moec.frontend import ast
from moec.frontend.evaluate import Evaluator
from moec.frontend.graph import Constant, Unknown, describe
from moec.frontend.mistake import Mistake
from moec.frontend.model import Capacity

FORM = "capacity(FACTOR, minimum = N, order = token, overflow = drop)"
CHOICES = {"order": ("token", "choice", "score"), "overflow": ("drop",)}
Order = Literal["token", "choice", "score"]


def read_policy(found: Collector, policy: ast.Expr, constants: Evaluator) -> Capacity | None:
    """The capacity, or None for dropless (and after an error)."""
    try:
        if isinstance(policy, ast.Name) and policy.text == "dropless":
            return None
        if isinstance(policy, ast.Call) and policy.function.text == "capacity":
            return _capacity(policy, constants)
        name = policy.function if isinstance(policy, ast.Call) else policy
        fix = None
        if isinstance(name, ast.Name):
            fix = did_you_mean(name.text, ("dropless", "capacity"), name.span)
        raise Mistake(
            "E0409",
            "tokens are `dropless`, or have a `capacity(...)`",
            policy.span,
            "this is neither",
            fix=fix or f"write `tokens dropless` or `tokens {FORM}`",
        )
    except Mistake as mistake:
        mistake.report(found)
        return None


def _capacity(call: ast.Call, constants: Evaluator) -> Capacity | None:
    given: dict[str, ast.Expr] = {}
    for i, argument in enumerate(call.arguments):
        name = argument.name.text if argument.name else "factor"
        if argument.name is None and i:
            raise Mistake(
                "E0409",
                "only the factor of `capacity` goes without a name",
                argument.value.span,
                notes=[f"its form is `{FORM}`"],
            )
        known = ("factor", "minimum", *CHOICES)
        if name not in known:
            span = argument.name.span if argument.name else argument.value.span
            raise Mistake(
                "E0206",
                f"`capacity` has no parameter `{name}`",
                span,
                "unknown parameter",
                notes=[f"its form is `{FORM}`"],
                fix=did_you_mean(name, known, span),
            )
        if name in given:
            raise Mistake("E0303", f"`capacity` is given `{name}` twice", argument.value.span)
        given[name] = argument.value
    if "factor" not in given:
        raise Mistake("E0303", "`capacity` lacks its factor", call.span, notes=[f"its form is `{FORM}`"])
    chosen = {name: _choice(name, given[name]) for name in CHOICES if name in given}
    factor = constants.value(given["factor"])
    minimum = constants.value(given["minimum"]) if "minimum" in given else Constant(0)
    if isinstance(factor, Unknown) or isinstance(minimum, Unknown):
        return None
    number = factor.value if isinstance(factor, Constant) else None
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 < number < float("inf"):
        raise Mistake(
            "E0409",
            "the factor of `capacity` is a finite number above 0",
            given["factor"].span,
            f"this is {describe(factor)}",
        )
    least = minimum.value if isinstance(minimum, Constant) else None
    if isinstance(least, bool) or not isinstance(least, int) or not 0 <= least < 2**31:
        raise Mistake(
            "E0409",
            "the minimum of `capacity` is a whole number from 0",
            given["minimum"].span,
            f"this is {describe(minimum)}",
        )
    return Capacity(float(number), least, cast(Order, chosen.get("order", "token")))


def _choice(name: str, expr: ast.Expr) -> str:
    if isinstance(expr, ast.Name) and expr.text in CHOICES[name]:
        return expr.text
    listed = ", ".join(f"`{one}`" for one in CHOICES[name])
    raise Mistake(
        "E0409",
        f"`{name}` of `capacity` is one of {listed}",
        expr.span,
        "this is not",
        fix=did_you_mean(expr.text, CHOICES[name], expr.span) if isinstance(expr, ast.Name) else None,
    )
