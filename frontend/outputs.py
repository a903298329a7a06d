"""What a router and an expert have to give: pick and weight, y."""

from __future__ import annotations

from collections.abc import Mapping

from moec.diagnostics import Collector, Label, Span
from moec.frontend.declarations import Assertion, Definition, ExpertsUse, RouterUse
from moec.frontend.graph import Constant, Node, PickType, TensorType, Unknown, Value, describe
from moec.frontend.mistake import Mistake
from moec.frontend.model import Router
from moec.frontend.modules import Known
from moec.frontend.unit import Unit


def router(
    found: Collector, use: RouterUse, known: Known, bound: Mapping[str, Value], unit: Unit, count_span: Span
) -> Router | None:
    """The router's outputs; None after reporting what is wrong with them."""
    pick, weight = bound.get("pick"), bound.get("weight")
    if not isinstance(pick, Node | Constant) or not isinstance(weight, Node | Constant):
        return None
    here = Label(use.call.span, f"in this use of `{known.definition.name.text}`")
    try:
        chosen = _pick(pick, _span(known.definition, "pick"), unit.count, here, count_span)
        given = _weight(weight, chosen, _span(known.definition, "weight"), unit, here)
    except Mistake as mistake:
        mistake.report(found)
        return None
    return Router(unit.dtype, chosen.type.shape[0], chosen, given)


def _span(definition: Definition, name: str) -> Span:
    for statement in reversed(definition.body):
        if not isinstance(statement, Assertion) and statement.name is not None and statement.name.text == name:
            return statement.span
    return definition.name.span


def _pick(pick: Node | Constant, span: Span, count: int, here: Label, count_span: Span) -> Node:
    if not isinstance(pick, Node) or not isinstance(pick.type, PickType):
        raise Mistake(
            "E0405",
            "`pick` must say which experts are chosen",
            span,
            f"this is {describe(pick)}",
            also=[here],
            fix="choose with `top_k`, `top_p`, or `choose` for numbers that are given",
        )
    if len(pick.type.shape) != 1:
        raise Mistake(
            "E0405",
            "`pick` must be one pick for a token",
            span,
            f"this is {pick.type}",
            also=[here],
            fix="make one of the groups' picks with `merge(pick)`",
        )
    if pick.type.over != count:
        more = "below(pick, count)" if pick.type.over > count else ""
        raise Mistake(
            "E0405",
            f"`pick` chooses from {pick.type.over}, but the layer has {count} experts",
            span,
            f"this is {pick.type}",
            also=[here, Label(count_span, f"{count} experts")],
            fix=f"empty the slots beyond the last expert with `{more}`" if more else "choose on an axis of `count`",
        )
    return pick


def _weight(weight: Node | Constant, pick: Node, span: Span, unit: Unit, here: Label) -> Node:
    type_ = pick.type
    assert isinstance(type_, PickType)
    if isinstance(weight, Constant):
        number = weight.value
        if type(number) not in (int, float):
            raise Mistake("E0406", "`weight` must be numbers", span, f"this is {describe(weight)}", also=[here])
        return unit.graph.node("constant", (), TensorType(()), span, float(number))
    if not isinstance(weight.type, TensorType) or weight.type.element != "f32":
        raise Mistake(
            "E0406",
            "`weight` must be f32 numbers, one an expert or one a slot",
            span,
            f"this is {weight.type}",
            also=[here],
        )
    if weight.type.slots is not None and weight.type.slots is not pick:
        raise Mistake(
            "E0406",
            "`weight` was taken over another pick than `pick`",
            span,
            f"this is {weight.type}",
            also=[here],
            fix="take it over the pick that the router gives: `... over pick`",
        )
    shape = weight.type.shape
    if shape == () or shape == type_.shape or (shape in ((type_.over,), (type_.source,)) and not weight.type.slots):
        return weight
    wide = " or ".join(f"[{n}]" for n in dict.fromkeys((type_.source, type_.over)))
    raise Mistake(
        "E0406",
        "`weight` has neither one value an expert nor one a slot",
        span,
        f"this is {weight.type}",
        also=[here],
        notes=[f"one value an expert is {wide}, one a slot of the pick is [{type_.shape[0]}]"],
    )


def expert(found: Collector, use: ExpertsUse, known: Known | None, output: Value, width: int) -> Node | None:
    """An expert's output; None after reporting what is wrong with it."""
    if isinstance(output, Unknown):
        return None
    # a single number is not stretched to the token's width: it is more likely an error than a wish
    type_ = output.type if isinstance(output, Node) else None
    if isinstance(type_, TensorType) and (type_.shape, type_.element) == ((width,), "f32"):
        return output if isinstance(output, Node) else None
    also = []
    if known is not None:
        also.append(Label(_span(known.definition, "y"), f"`y` is {describe(output)}"))
    found.error(
        "E0407",
        f"expert `{use.name.text}` must give [{width}], as wide as the token",
        use.value.span,
        f"this gives {describe(output)}",
        also=also,
        fix=f"end with `linear(..., d)`, where d is {width}" if isinstance(output, Node) else None,
    )
    return None
