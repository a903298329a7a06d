"""Reads `recompile when CONDITION for WINDOW, hysteresis H, gain G, max N variants`."""

from __future__ import annotations

from dataclasses import dataclass

from moec.artifact.policy import (
    DEFAULT_GAIN,
    DEFAULT_HYSTERESIS,
    LARGEST_GAIN,
    LONGEST_CALLS,
    LONGEST_SECONDS,
    MOST_VARIANTS,
    Trigger,
    Window,
)
from moec.diagnostics import Label, Span, did_you_mean
from moec.frontend import ast
from moec.frontend.declarations import Option, RecompileUse
from moec.frontend.evaluate import Evaluator
from moec.frontend.format import one_line
from moec.frontend.layouts.advice import Written
from moec.frontend.layouts.conditions import number_of, read_condition
from moec.frontend.mistake import Mistake
from moec.frontend.units import SECONDS

FORMS = {"hysteresis": "hysteresis 0.1", "gain": "gain 1.05", "max": "max 4 variants"}
LONGEST_TEXT = 1024


@dataclass(frozen=True)
class Recompile:
    """A statement that has been read; `variants` is what its `max` says, with its place."""

    written: Written
    variants: tuple[int, Span] | None


def read_recompile(use: RecompileUse, constants: Evaluator) -> Recompile:
    """Raises Mistake for what is wrong, UnknownNumber behind an error in a number."""
    part = read_condition(use.when, constants)
    window = _window(use, constants)
    given = _options(use.options)
    hysteresis = _number(given, "hysteresis", constants, DEFAULT_HYSTERESIS, 0.0, 1.0)
    gain = _number(given, "gain", constants, DEFAULT_GAIN, 1.0, LARGEST_GAIN)
    variants = None
    if "max" in given:
        variants = (_variants(given["max"], constants), given["max"].value.span)
    text = one_line(use.when.span.text)
    shown = text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 3] + "..."
    return Recompile(Written(use.span, Trigger(part.condition, shown, window, hysteresis, gain), part), variants)


def _window(use: RecompileUse, constants: Evaluator) -> Window:
    expr, unit = use.window, use.unit
    if isinstance(expr, ast.Quantity):
        if expr.unit not in SECONDS or unit is not None:
            raise Mistake("E0454", "a window is a number of calls, or a time", expr.span, "this is neither",
                          fix="write `for 200 calls` or `for 30 s`")  # fmt: skip
        seconds = expr.number * SECONDS[expr.unit]
        if not 0 < seconds <= LONGEST_SECONDS:
            raise Mistake("E0454", "a window lasts at most a week, and some time", expr.span, f"this is {seconds:g} s")
        return Window(seconds=float(seconds))
    if unit is None or unit.text != "calls":
        units = ("calls", *SECONDS)
        span = unit.span if unit else expr.span
        raise Mistake(
            "E0454",
            "a window is a number of calls, or a time",
            span,
            "unknown unit" if unit else "its unit is missing",
            notes=["its units are `calls`, `s` and `min`"],
            fix=(did_you_mean(unit.text, units, span) if unit else None) or "write `for 200 calls` or `for 30 s`",
        )
    calls = number_of(expr, constants, "E0454", "the number of calls")
    if not isinstance(calls, int) or not 1 <= calls <= LONGEST_CALLS:
        raise Mistake("E0454", "a window is a whole number of calls from 1", expr.span, f"this is {calls}")
    return Window(calls=calls)


def _options(options: tuple[Option, ...]) -> dict[str, Option]:
    given: dict[str, Option] = {}
    for option in options:
        name = option.name
        if name.text not in FORMS:
            raise Mistake(
                "E0454",
                f"`recompile` has no option `{name.text}`",
                name.span,
                "unknown option",
                notes=[f"its options are {', '.join(f'`{form}`' for form in FORMS.values())}"],
                fix=did_you_mean(name.text, FORMS, name.span),
            )
        if name.text in given:
            first = Label(given[name.text].name.span, "the first")
            raise Mistake("E0454", f"`{name.text}` is given twice", name.span, "the second", also=[first])
        if (option.unit.text if option.unit else "") != ("variants" if name.text == "max" else ""):
            span = option.unit.span if option.unit else option.value.span
            raise Mistake("E0454", f"this option is `{FORMS[name.text]}`", span, fix=f"write `{FORMS[name.text]}`")
        given[name.text] = option
    return given


def _number(
    given: dict[str, Option], name: str, constants: Evaluator, default: float, low: float, high: float
) -> float:
    if name not in given:
        return default
    value = given[name].value
    number = number_of(value, constants, "E0454", f"the {name}")
    if not low <= number <= high:
        raise Mistake("E0454", f"the {name} lies between {low:g} and {high:g}", value.span, f"this is {number}")
    return float(number)


def _variants(option: Option, constants: Evaluator) -> int:
    number = number_of(option.value, constants, "E0454", "the number of variants")
    if not isinstance(number, int) or not 1 <= number <= MOST_VARIANTS:
        said = f"there may be 1 to {MOST_VARIANTS} variants"
        raise Mistake("E0454", said, option.value.span, f"this is {number}")
    return number
