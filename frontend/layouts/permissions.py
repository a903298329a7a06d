"""Reads what a layout allows to change: `specialise`, `approx` and `page` statements."""

from __future__ import annotations

from itertools import pairwise

from moec.artifact.policy import LARGEST_FACTOR, MOST_VARIANTS, Coldest, Page
from moec.artifact.traffic import MOST_TOKENS, Load
from moec.diagnostics import Collector, Fix, Label, Span, did_you_mean
from moec.frontend import ast
from moec.frontend.check_layer import CheckedLayer
from moec.frontend.declarations import ColdestUse, PageUse, SpecialiseUse
from moec.frontend.formats import check_groups, read_format
from moec.frontend.layouts.conditions import UnknownNumber, number_of
from moec.frontend.layouts.quantities import measured
from moec.frontend.layouts.room import group_bytes, shown
from moec.frontend.mistake import Mistake
from moec.frontend.subsets import require_routed, whole_number
from moec.frontend.units import BYTES

TOKENS = "specialise tokens(1..16, 17..256)"
CAPACITY = "approx capacity(1.0..2.0)"
COLDEST = "approx quantize coldest(GROUP, N) as FORMAT"
LARGEST_BYTES = 2**50


def kind_of(use: SpecialiseUse) -> str:
    """`tokens` or `capacity`.  Raises Mistake for anything else, and where `approx` is missing or too much."""
    name = use.call.function if isinstance(use.call, ast.Call) else use.call
    text = name.text if isinstance(name, ast.Name) else ""
    if not isinstance(use.call, ast.Call) or text not in ("tokens", "capacity"):
        raise Mistake(
            "E0456",
            "this is nothing that a layer can be specialised in",
            name.span,
            notes=[f"there is `{TOKENS}`, `{CAPACITY}` and `{COLDEST}`"],
            fix=did_you_mean(text, ("tokens", "capacity"), name.span) if text not in ("tokens", "capacity") else None,
        )
    head = Span(use.span.source, use.span.start, use.span.start + len("approx" if use.approx else "specialise"))
    if text == "capacity" and not use.approx:
        raise Mistake(
            "E0456",
            "another capacity drops other tokens, so results change",
            head,
            "this promises the same results",
            fix=Fix("say that they may change: `approx capacity(...)`", head, "approx"),
        )
    if text == "tokens" and use.approx:
        raise Mistake(
            "E0456",
            "kernels for ranges of tokens give the same results",
            head,
            "nothing is approximated",
            fix=Fix("write `specialise tokens(...)`", head, "specialise"),
        )
    return text


def read_tokens(
    found: Collector, use: SpecialiseUse, checked: CheckedLayer, load: Load | None
) -> list[tuple[int, int]]:
    """The ranges of `tokens(...)`, ascending.  Raises Mistake and UnknownNumber; warns of what the load rules out."""
    assert isinstance(use.call, ast.Call)
    ranges: list[tuple[int, int, Span]] = []
    for argument in use.call.arguments:
        value = argument.value
        if argument.name is not None:
            raise Mistake("E0455", "ranges of tokens have no names", argument.name.span, fix=f"write `{TOKENS}`")
        ends = (value.first, value.last) if isinstance(value, ast.Range) else (value, value)
        first, last = (_tokens(end, checked) for end in ends)
        if first > last:
            raise Mistake("E0455", "this range is empty", value.span, f"{first} is above {last}", fix="turn it around")
        ranges.append((first, last, value.span))
    if not ranges:
        raise Mistake("E0455", "there is no range of tokens", use.call.span, fix=f"write `{TOKENS}`")
    if len(ranges) > MOST_VARIANTS:
        raise Mistake("E0455", f"there are more than {MOST_VARIANTS} ranges of tokens", use.call.span)
    ranges.sort(key=lambda one: one[:2])
    for before, after in pairwise(ranges):
        if before[1] >= after[0]:
            raise Mistake(
                "E0455",
                "two ranges of tokens overlap",
                after[2],
                f"{after[0]:,} is in both",
                also=[Label(before[2], "the other")],
                fix="a call has one kernel: let every range begin above the one before it",
            )
    for first, last, span in ranges:
        if load is not None and (last < load.tokens[0] or first > load.tokens[1]):
            found.warning(
                "W0015",
                "no call of the load has so many tokens",
                span,
                f"`{load.name}` has {load.tokens[0]:,} to {load.tokens[1]:,}",
                fix="remove the range",
            )
    return [(first, last) for first, last, _ in ranges]


def _tokens(expr: ast.Expr, checked: CheckedLayer) -> int:
    number = number_of(expr, checked.constants, "E0455", "the tokens of a call")
    if not isinstance(number, int) or not 0 <= number <= MOST_TOKENS:
        raise Mistake("E0455", "the tokens of a call are a whole number below 2^31", expr.span, f"this is {number}")
    return number


def read_capacity(use: SpecialiseUse, checked: CheckedLayer) -> tuple[float, float]:
    """The factors of `approx capacity(...)`.  Raises Mistake and UnknownNumber."""
    assert isinstance(use.call, ast.Call)
    match use.call.arguments:
        case (ast.Argument(name=None, value=ast.Range() as span),):
            ends = (span.first, span.last)
        case _:
            raise Mistake("E0457", "this is not a range of factors", use.call.span, fix=f"write `{CAPACITY}`")
    low, high = (float(number_of(end, checked.constants, "E0457", "a factor")) for end in ends)
    policy = checked.layer.tokens
    if policy is None:
        raise Mistake(
            "E0457",
            f"layer `{checked.layer.name}` has no capacity that could be refitted",
            use.call.span,
            "it drops no tokens",
            fix="remove this, or give the layer `tokens capacity(...)`",
        )
    if not 0 < low <= high <= LARGEST_FACTOR:
        raise Mistake(
            "E0457", "factors lie above 0, the lower one first", span.span, f"this is {low:g}..{high:g}", fix=CAPACITY
        )
    if not low <= policy.factor <= high:
        raise Mistake(
            "E0457",
            "the layer's own capacity lies outside of this range",
            span.span,
            f"the layer has {policy.factor:g}",
            fix=f"write `{min(low, policy.factor):g}..{max(high, policy.factor):g}`",
        )
    return low, high


def read_coldest(found: Collector, use: ColdestUse, checked: CheckedLayer) -> Coldest:
    """`approx quantize coldest(...) as FORMAT`.  Raises Mistake and UnknownNumber."""
    experts = checked.layer.routed
    if not use.approx:
        head = Span(use.span.source, use.span.start, use.span.start + len("quantize"))
        raise Mistake(
            "E0456",
            "experts that are quantised while the layer runs give other results",
            head,
            "`approx` is missing",
            fix=Fix("say that results may change: `approx quantize ...`", head, "approx quantize"),
        )
    call = use.chosen
    if not isinstance(call, ast.Call) or call.function.text != "coldest":
        name = call.function if isinstance(call, ast.Call) else call
        near = did_you_mean(name.text, ("coldest",), name.span) if isinstance(name, ast.Name) else None
        fix = near or f"write `{COLDEST}`"
        raise Mistake("E0458", "a layout quantises the coldest experts", name.span, "these are others", fix=fix)
    positional = [one.value for one in call.arguments if one.name is None]
    if len(positional) != 2 or len(call.arguments) != 2:
        named = next((one.name for one in call.arguments if one.name is not None), None)
        raise Mistake(
            "E0458",
            "`coldest` of a layout takes a group and a number",
            named.span if named else call.span,
            notes=["which experts are cold is what the running layer observes"],
            fix=f"write `{COLDEST}`",
        )
    require_routed(positional[0], experts)
    count = whole_number(positional[1], checked.constants)
    read = read_format(use.format, checked.constants, subset=True)
    if count is None or read is None:
        raise UnknownNumber
    kept = experts.subsets[0].numbers if experts.subsets else range(experts.count)
    if not 1 <= count < len(kept):
        said = f"of {len(kept):,} experts 1 to {len(kept) - 1:,} can be colder than the others"
        raise Mistake("E0458", said, positional[1].span, f"this is {count:,}")
    format = read[0]
    if format == experts.format:
        said = "the experts have this format already"
        raise Mistake("E0458", said, use.format.span, also=[Label(experts.span, "the group")], fix="choose another one")
    check_groups(found, format, use.format.span, checked.owned)
    return Coldest(experts.name, count, format.codes, format.group, str(format.scale))


def read_page(found: Collector, use: PageUse, checked: CheckedLayer) -> Page:
    """`page GROUP within BYTES`.  Raises Mistake and UnknownNumber; warns of budgets that make no sense."""
    experts = checked.layer.routed
    if use.group.text != experts.name:
        raise Mistake(
            "E0459",
            "only the routed experts can lie on disk",
            use.group.span,
            f"this is not `{experts.name}`",
            also=[Label(experts.span, "the routed experts")],
            fix=did_you_mean(use.group.text, (experts.name,), use.group.span),
        )
    number = measured(use.bytes, BYTES, checked.constants, "E0459", "the memory", bare=True)
    if not 1 <= number <= LARGEST_BYTES:
        raise Mistake("E0459", "the memory is a number of bytes from 1", use.bytes.span, f"this is {number:g}")
    all_, least = group_bytes(checked.layer, experts), checked.layer.router.slots
    if number >= all_:
        said = f"all {experts.count:,} experts take {shown(all_)}"
        found.warning("W0016", "nothing has to lie on disk", use.bytes.span, said, fix="allow less, or remove this")
    elif number < all_ / experts.count * least:
        found.warning(
            "W0016",
            "the memory does not hold the experts of one token",
            use.bytes.span,
            f"{least} experts take {shown(all_ * least / experts.count)}",
            notes=["every call would wait for the disk"],
            fix="allow more",
        )
    return Page(experts.name, int(number))
