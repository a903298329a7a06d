"""Reads `loss balance(...)` and `loss z(...)`, and checks that the router gives what they are computed from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Literal

from moec.diagnostics import Collector, Label, Span, did_you_mean
from moec.frontend import ast
from moec.frontend.declarations import Assertion, Definition, LossUse
from moec.frontend.evaluate import Evaluator
from moec.frontend.graph import Constant, Node, TensorType, Unknown, Value, describe
from moec.frontend.mistake import Mistake
from moec.frontend.model import Loss

FORMS = {"balance": "balance(WEIGHT, over = batch)", "z": "z(WEIGHT)"}
READS = {"balance": "probability", "z": "logits"}
"""What each loss reads of the router."""
OVER = ("batch", "global")


@dataclass(frozen=True)
class Losses:
    """The losses of a layer, in the order of the file, and what they read of the router, by name."""

    losses: tuple[Loss, ...]
    values: Mapping[str, Node]


def read_losses(
    found: Collector,
    uses: Sequence[LossUse],
    constants: Evaluator,
    router: Definition,
    bound: Mapping[str, Value],
    count: int,
) -> Losses:
    """The losses that a layer asks for; what is wrong with one is reported, and it is left out."""
    losses: list[Loss] = []
    values: dict[str, Node] = {}
    for use in uses:
        try:
            loss = _read(use, constants)
            if loss is None:
                continue
            twice = next((one for one in losses if one.kind == loss.kind), None)
            if twice is not None:
                first = Label(twice.span, "the first")
                raise Mistake("E0425", f"a layer has one `{loss.kind}` loss", use.span, also=[first], fix="remove one")
            name = READS[loss.kind]
            value = bound.get(name)
            if not isinstance(value, Unknown):
                values[name] = _given(loss, value, router, count)
                losses.append(loss)
        except Mistake as mistake:
            mistake.report(found)
    return Losses(tuple(losses), values)


def _read(use: LossUse, constants: Evaluator) -> Loss | None:
    call = use.loss
    name = call.function if isinstance(call, ast.Call) else call
    kind = name.text if isinstance(name, ast.Name) else ""
    if kind not in FORMS or not isinstance(call, ast.Call):
        fix = did_you_mean(kind, FORMS, name.span) if isinstance(name, ast.Name) and kind not in FORMS else None
        forms = " or ".join(f"`loss {form}`" for form in FORMS.values())
        raise Mistake("E0425", f"a loss is {forms}", call.span, "this is neither", fix=fix or f"write {forms}")
    weight: ast.Expr | None = None
    over: Literal["batch", "global"] = "batch"
    for argument in call.arguments:
        if argument.name is None and weight is None:
            weight = argument.value
        elif argument.name is not None and argument.name.text == "over" and kind == "balance":
            over = _over(argument.value)
        else:
            raise Mistake(
                "E0425",
                f"`{kind}` takes {'its weight and `over`' if kind == 'balance' else 'its weight only'}",
                argument.name.span if argument.name else argument.value.span,
                "this is something else",
                fix=f"write `loss {FORMS[kind]}`",
            )
    if weight is None:
        raise Mistake("E0425", f"the loss `{kind}` lacks its weight", call.span, fix=f"write `loss {FORMS[kind]}`")
    value = constants.value(weight)
    if isinstance(value, Unknown):
        return None
    number = value.value if isinstance(value, Constant) else None
    if isinstance(number, bool) or not isinstance(number, int | float) or not (number > 0 and isfinite(number)):
        raise Mistake(
            "E0425", "the weight of a loss is a finite number above 0", weight.span, f"this is {describe(value)}"
        )
    return Loss("balance" if kind == "balance" else "z", float(number), over, use.span)


def _over(expr: ast.Expr) -> Literal["batch", "global"]:
    if isinstance(expr, ast.Name) and expr.text in OVER:
        return "global" if expr.text == "global" else "batch"
    raise Mistake(
        "E0425",
        "`over` is `batch`, the tokens of a call, or `global`, those of all processes",
        expr.span,
        "this is neither",
        fix=did_you_mean(expr.text, OVER, expr.span) if isinstance(expr, ast.Name) else None,
    )


def _given(loss: Loss, value: Value | None, router: Definition, count: int) -> Node:
    """What the router gives for a loss; raises Mistake where it does not, or has another shape."""
    name = READS[loss.kind]
    meaning = {
        "probability": "how much each expert is wanted, [count]",
        "logits": "what its softmax is taken of, a vector",
    }[name]
    if value is None:
        raise Mistake(
            "E0426",
            f"router `{router.name.text}` does not say what the loss `{loss.kind}` is computed from",
            loss.span,
            f"reads `{name}`",
            also=[Label(router.name.span, f"never binds `{name}`")],
            notes=[f"`{name}` says {meaning}"],
            fix=f"add `{name} = ...` to the router, or remove the loss",
        )
    type_ = value.type if isinstance(value, Node) else None
    plain = isinstance(type_, TensorType) and type_.element == "f32" and type_.slots is None
    wanted = [(count,)] if name == "probability" else [type_.shape] if type_ and len(type_.shape) == 1 else []
    form = "a vector" if name == "logits" else f"[{count}]"
    if not isinstance(value, Node) or not plain or type_ is None or type_.shape not in wanted:
        raise Mistake(
            "E0426",
            f"`{name}` of router `{router.name.text}` must be {form}",
            _span(router, name),
            f"this is {describe(value) if not isinstance(value, Node) else value.type}",
            also=[Label(loss.span, "read by this loss")],
            notes=[f"`{name}` says {meaning}"],
        )
    return value


def _span(definition: Definition, name: str) -> Span:
    for statement in reversed(definition.body):
        if not isinstance(statement, Assertion) and statement.name is not None and statement.name.text == name:
            return statement.span
    return definition.name.span
