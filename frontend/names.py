"""Names: what is reserved, what a name or a call means, and what is said about one that means nothing."""

from __future__ import annotations

from collections.abc import Iterable

from moec.diagnostics import Collector, Label, Span, did_you_mean
from moec.frontend import ast
from moec.frontend.graph import CODES, Constant, DType
from moec.frontend.operations import OPERATIONS

BUILTIN: dict[str, Constant] = {
    "true": Constant(True),
    "false": Constant(False),
    "inf": Constant(float("inf")),
    **{dtype.value: Constant(dtype) for dtype in DType if dtype not in CODES},
}
RESERVED = frozenset({"x", *BUILTIN})

Implicit = frozenset({"x", "d", "count"})
"""Names that a router's body knows by itself; an expert's knows x and d."""


def unknown_name(found: Collector, name: ast.Name, known: Iterable[str], later: Span | None = None) -> None:
    """Report a name that stands for no value here; `later` is where it is bound further down."""
    text = name.text
    if later is not None:
        found.error(
            "E0204",
            f"`{text}` is used before it is bound",
            name.span,
            "not bound yet",
            also=[Label(later, "bound here")],
            fix="move the binding up",
        )
    elif text in OPERATIONS:
        found.error(
            "E0210",
            f"`{text}` is an operation, not a value",
            name.span,
            "needs operands",
            fix=f"write `{OPERATIONS[text].usage}`",
        )
    else:
        known = set(known)
        listed = ", ".join(f"`{one}`" for one in sorted(known)) or "no name; a number stands here"
        notes = [f"known here: {listed}"] if len(known) <= 12 else []
        found.error(
            "E0201",
            f"nothing is called `{text}`",
            name.span,
            "unknown name",
            notes=notes,
            fix=did_you_mean(text, known | BUILTIN.keys(), name.span),
        )


def unknown_function(found: Collector, name: ast.Name, definitions: Iterable[str]) -> None:
    """Report a call of something that is neither an operation nor a definition."""
    found.error(
        "E0202",
        f"there is no operation or expert called `{name.text}`",
        name.span,
        "unknown operation",
        fix=did_you_mean(name.text, [*OPERATIONS, *definitions], name.span),
    )


def reserved(found: Collector, name: ast.Name, also: Iterable[str] = ()) -> bool:
    """Report a name that may not be bound; returns whether it is such a name."""
    if name.text not in RESERVED and name.text not in also:
        return False
    means = {"x": "the token", "count": "the number of experts", "router": "the layer's router"}
    what = means.get(name.text, "a constant of the language")
    found.error(
        "E0209",
        f"`{name.text}` is {what} and cannot be bound to anything else",
        name.span,
        "reserved",
        fix=f"choose another name, such as `{name.text}_`",
    )
    return True


def duplicate(found: Collector, name: ast.Name, first: Span) -> None:
    found.error(
        "E0203",
        f"`{name.text}` is bound twice",
        name.span,
        "bound again",
        also=[Label(first, "first bound here")],
        notes=["a name keeps its value: there is no assignment"],
        fix="choose another name for the second",
    )
