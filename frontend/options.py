"""A layer's parameters: their defaults, and what `-D name=value` puts in their place."""

from __future__ import annotations

from collections.abc import Mapping

from moec.diagnostics import Collector, Source, Span, did_you_mean
from moec.frontend import constants
from moec.frontend.declarations import LayerDeclaration
from moec.frontend.evaluate import Environment, Evaluator
from moec.frontend.graph import UNKNOWN, Constant, DType, Unknown, Value
from moec.frontend.mistake import Mistake
from moec.frontend.names import BUILTIN

Defines = Mapping[str, str | int | float | bool]
LONGEST = 40
"""Characters of a number on the command line."""


def resolve(found: Collector, layer: LayerDeclaration, environment: Environment, defines: Defines) -> dict[str, Value]:
    """The value of each parameter; those that have none, or a wrong one, are reported and unknown."""
    values = environment.values
    for parameter in layer.parameters:
        name = parameter.name
        default = Evaluator(found, environment).value(parameter.default) if parameter.default else None
        if name.text in defines:
            values[name.text] = _defined(found, name.text, defines[name.text], default)
        elif default is None:
            found.error(
                "E0504",
                f"parameter `{name.text}` of `{layer.name.text}` has no value",
                name.span,
                "it has no default",
                fix=f"give it one with `-D {name.text}=...`, or write a default here",
            )
            values[name.text] = UNKNOWN
        else:
            values[name.text] = default
    return dict(values)


def unknown_defines(found: Collector, layers: list[LayerDeclaration], defines: Defines) -> None:
    """Report what is defined and is a parameter of none of the layers."""
    known = {parameter.name.text for layer in layers for parameter in layer.parameters}
    for name, value in defines.items():
        if name not in known:
            span = _span(name, value, len(name))
            where = f"layer `{layers[0].name.text}`" if len(layers) == 1 else "the file's layers"
            found.error(
                "E0207",
                f"`-D {name}` sets a parameter that {where} does not have",
                span,
                "no such parameter",
                notes=[f"there are {', '.join(f'`{one}`' for one in sorted(known))}"] if known else [],
                fix=did_you_mean(name, known, span),
            )


def _span(name: str, value: object, width: int, start: int = 0) -> Span:
    text = f"-D {name}={str(value).lower() if isinstance(value, bool) else value}"
    return Span(Source("command line", text), 3 + start, 3 + start + width)


def _defined(found: Collector, name: str, given: str | int | float | bool, default: Value | None) -> Value:
    value: Constant | None = _read(given) if isinstance(given, str) else Constant(given)
    span = _span(name, given, len(str(given)), len(name) + 1)
    if value is None:
        found.error(
            "E0503",
            f"`{given}` is no value",
            span,
            notes=["a value is a number, true, false, f32, bf16 or f16"],
        )
        return UNKNOWN
    if isinstance(default, Constant):
        wanted = type(default.value)
        if wanted is float and type(value.value) is int:
            value = Constant(float(value.value))
        if type(value.value) is not wanted:
            found.error("E0503", f"`{name}` must be {default.kind}, as its default is", span, f"this is {value.kind}")
            return UNKNOWN
    try:
        return constants.bounded(value.value, span) if type(value.value) is int else value
    except Mistake as mistake:
        mistake.report(found)
        return UNKNOWN


def _read(text: str) -> Constant | None:
    text = text.strip()
    if text in BUILTIN:
        return BUILTIN[text]
    if len(text) > LONGEST or not text.isascii():
        return None
    for read in (int, float):
        try:
            number = read(text)
        except ValueError:
            continue
        return Constant(number) if number == number and "_" not in text else None
    return None


def plain(values: Mapping[str, Value]) -> dict[str, int | float | bool | str]:
    """Resolved parameters as plain data; dtypes by name."""
    out: dict[str, int | float | bool | str] = {}
    for name, value in values.items():
        if isinstance(value, Constant):
            out[name] = value.value.value if isinstance(value.value, DType) else value.value
        elif not isinstance(value, Unknown):
            raise TypeError(f"{name} is not a constant")
    return out
