"""Reads what stands behind the `:` of a group of experts: a dtype, or a format such as `int4(group = 32)`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import gcd

from moec.diagnostics import Collector, Label, Span, closest, did_you_mean
from moec.frontend import ast
from moec.frontend.evaluate import Evaluator
from moec.frontend.graph import Constant, DType, Unknown, describe
from moec.frontend.mistake import Mistake
from moec.frontend.model import Format
from moec.frontend.names import BUILTIN
from moec.frontend.unit import Parameter

GROUPS: dict[str, int | None] = {"int8": None, "int4": 32, "ternary": None, "fp8_e4m3": None}
"""The formats, and the groups that they have by themselves; None: one a channel."""

_FLOATS = (DType.F32, DType.BF16, DType.F16)
_SCALES = (DType.F32, DType.BF16)
"""Not f16: scales of small weights would be subnormal in it."""

_BLOCKS = "write `group = N, scale = f32` for blocks of M × N weights, and give each channel the scales of its block"

WHOLE_LAYER = ("x", "prequantized")
OPTIONS = ("per", "group", "scale", *WHOLE_LAYER)


def is_format(expr: ast.Expr, constants: Evaluator) -> bool:
    """Does this stand for a format rather than a dtype?  A name that is a near miss of a format's does too."""
    if isinstance(expr, ast.Call):
        return True
    if not isinstance(expr, ast.Name) or expr.text in BUILTIN or constants.knows(expr.text):
        return False
    dtypes = [name for name, one in BUILTIN.items() if isinstance(one.value, DType)]
    return closest(expr.text, [*GROUPS, *dtypes]) in GROUPS


def read_format(expr: ast.Expr, constants: Evaluator, subset: bool = False) -> tuple[Format, DType] | None:
    """The format, and the dtype of x; None if an argument is unknown.  Raises Mistake for what is no format.

    `subset`: it is that of some experts of a group, which have the x of the others.
    """
    name = expr.function if isinstance(expr, ast.Call) else expr
    if not isinstance(name, ast.Name) or name.text not in GROUPS:
        raise Mistake(
            "E0420",
            f"there is no format `{name.span.text}`",
            name.span,
            "unknown format",
            notes=[f"the formats are {', '.join(f'`{one}`' for one in GROUPS)}"],
            fix=did_you_mean(name.text, GROUPS, name.span) if isinstance(name, ast.Name) else None,
        )
    given = _options(expr, name.text, subset) if isinstance(expr, ast.Call) else {}
    group = GROUPS[name.text]
    if "per" in given:
        _require_channel(given["per"], name.text)
        group = None
    try:
        if "group" in given:
            group = _group(given["group"], constants)
        scale = _dtype(given["scale"], constants, _SCALES) if "scale" in given else DType.BF16 if group else DType.F32
        x = _dtype(given["x"], constants, _FLOATS) if "x" in given else DType.BF16
        codes = _truth(given["prequantized"], constants) if "prequantized" in given else False
    except _UnknownArgument:
        return None
    return Format(name.text, group, scale, codes), x


def check_groups(found: Collector, format: Format, span: Span, parameters: Iterable[Parameter]) -> None:
    """Report linears whose inputs are no whole number of groups."""
    linears = [one for one in parameters if one.linear]
    for one in linears:
        inner = one.shape[1]
        if format.group and inner % format.group:
            common = gcd(*(each.shape[1] for each in linears))
            fitting = max(n for n in range(1, min(format.group, common) + 1) if common % n == 0)
            found.error(
                "E0421",
                f"groups of {format.group} do not divide the {inner:,} inputs of `{one.name}`",
                span,
                f"{inner:,} is no multiple of {format.group}",
                also=[Label(one.span, f"this linear has {inner:,} inputs")],
                fix=f"write `group = {fitting}`, or `per = channel`" if fitting > 1 else "write `per = channel`",
            )
            return


class _UnknownArgument(Exception):
    """An argument has an error that is reported already."""


def _options(call: ast.Call, format: str, subset: bool) -> dict[str, ast.Expr]:
    form = f"{format}({'group = N, scale = DTYPE' if subset else 'group = N, scale = DTYPE, x = DTYPE'})"
    given: dict[str, ast.Expr] = {}
    for argument in call.arguments:
        value, name = argument.value, argument.name
        if name is None:
            raise Mistake(
                "E0420",
                f"the options of `{format}` have names",
                value.span,
                "which option is this?",
                notes=[f"its form is `{form}` or `{format}(per = channel)`"],
                fix=f"write `group = {value.span.text}`" if isinstance(value, ast.Number) else None,
            )
        if name.text not in OPTIONS:
            raise Mistake(
                "E0206",
                f"`{format}` has no option `{name.text}`",
                name.span,
                "unknown option",
                notes=[f"its options are {', '.join(f'`{one}`' for one in OPTIONS)}"],
                fix=_BLOCKS if name.text in ("block", "blocks") else did_you_mean(name.text, OPTIONS, name.span),
            )
        if name.text in given:
            raise Mistake("E0303", f"`{format}` is given `{name.text}` twice", name.span, "the second")
        if subset and name.text in WHOLE_LAYER:
            raise Mistake(
                "E0420",
                f"`{name.text}` is the same for all experts of a group",
                name.span,
                "it cannot differ here",
                fix="leave it out",
            )
        given[name.text] = value
    if "per" in given and "group" in given:
        raise Mistake(
            "E0420",
            "a scale belongs to a channel or to a group",
            given["group"].span,
            "the group",
            also=[Label(given["per"].span, "the channel")],
            fix="leave one of them out",
        )
    return given


def _require_channel(expr: ast.Expr, format: str) -> None:
    if isinstance(expr, ast.Name) and expr.text == "channel":
        return
    fix = did_you_mean(expr.text, ("channel",), expr.span) if isinstance(expr, ast.Name) else None
    raise Mistake(
        "E0420",
        f"`per` of `{format}` is `channel`",
        expr.span,
        "this is not",
        fix=fix or "write `per = channel`, or `group = N`",
    )


def _constant(expr: ast.Expr, constants: Evaluator) -> Constant:
    value = constants.value(expr)
    if isinstance(value, Unknown):
        raise _UnknownArgument
    if not isinstance(value, Constant):
        raise Mistake("E0308", "this must be known while compiling", expr.span, f"this is {describe(value)}")
    return value


def _group(expr: ast.Expr, constants: Evaluator) -> int:
    number = _constant(expr, constants)
    if isinstance(number.value, bool) or not isinstance(number.value, int) or number.value < 1:
        raise Mistake("E0420", "a group is a whole number of inputs", expr.span, f"this is {describe(number)}")
    return number.value


def _dtype(expr: ast.Expr, constants: Evaluator, among: Sequence[DType]) -> DType:
    dtype = constants.dtype(expr)
    if dtype is None:
        raise _UnknownArgument
    if dtype not in among:
        listed = "scales are f32 or bf16" if among is _SCALES else "x is f32, bf16 or f16"
        raise Mistake("E0411", listed, expr.span, f"this is {dtype}")
    return dtype


def _truth(expr: ast.Expr, constants: Evaluator) -> bool:
    value = _constant(expr, constants)
    if not isinstance(value.value, bool):
        raise Mistake("E0420", "`prequantized` is `true` or `false`", expr.span, f"this is {describe(value)}")
    return value.value
