"""Which argument of a call goes to which parameter."""

from __future__ import annotations

from collections.abc import Sequence

from moec.diagnostics import Collector, Label, Span, did_you_mean
from moec.frontend import ast
from moec.frontend.declarations import Parameter
from moec.frontend.operations import Operation


def bind_operands(found: Collector, call: ast.Call, operation: Operation) -> dict[str, list[ast.Expr]] | None:
    """The arguments of an operation by operand; with `many` the last (or `""`) takes all that remain."""
    names = (*operation.operands, *operation.optional)
    return _bind(found, call, names, operation.operands, operation.usage, operation.many)


def bind_parameters(
    found: Collector, call: ast.Call, parameters: Sequence[Parameter]
) -> dict[str, ast.Expr | None] | None:
    """The arguments of a router or expert by parameter, None where the default holds."""
    names = tuple(parameter.name.text for parameter in parameters)
    required = tuple(parameter.name.text for parameter in parameters if parameter.default is None)
    shown = [
        parameter.name.text + (f" = {parameter.default.span.text}" if parameter.default else "")
        for parameter in parameters
    ]
    bound = _bind(found, call, names, required, f"{call.function.text}({', '.join(shown)})", False)
    if bound is None:
        return None
    return {name: bound[name][0] if name in bound else None for name in names}


def _bind(
    found: Collector, call: ast.Call, names: tuple[str, ...], required: tuple[str, ...], usage: str, many: bool
) -> dict[str, list[ast.Expr]] | None:
    bound: dict[str, list[ast.Expr]] = {}
    ok = True
    function = call.function.text
    positional = 0
    for argument in call.arguments:
        value = argument.value
        if argument.name is None:
            if positional < len(names) - many:
                ok &= _given_once(found, call, names[positional], value.span, bound)
                bound.setdefault(names[positional], [value])
            elif many:
                bound.setdefault(names[-1] if names else "", []).append(value)
            else:
                ok = False
                takes = f"{len(names)} argument{'s' * (len(names) != 1)}"
                found.error(
                    "E0303",
                    f"`{function}` takes {takes if names else 'no arguments'}",
                    value.span,
                    "one too many",
                    notes=[f"its form is `{usage}`"],
                )
            positional += 1
            continue
        name = argument.name
        if name.text not in names or (many and name.text == names[-1]):
            ok = False
            found.error(
                "E0206",
                f"`{function}` has no parameter `{name.text}`",
                name.span,
                "unknown parameter",
                notes=[f"its form is `{usage}`"],
                fix=did_you_mean(name.text, names, name.span),
            )
        else:
            ok &= _given_once(found, call, name.text, name.span, bound)
            bound.setdefault(name.text, [value])
    missing = [f"`{name}`" for name in required if name not in bound]
    if missing and ok:
        ok = False
        found.error(
            "E0303",
            f"`{function}` lacks {' and '.join(missing)}",
            call.span,
            "more must be given",
            notes=[f"its form is `{usage}`"],
        )
    return bound if ok else None


def _given_once(found: Collector, call: ast.Call, name: str, span: Span, bound: dict[str, list[ast.Expr]]) -> bool:
    """Whether this is the first argument for the parameter `name`; if not, it is reported."""
    if name in bound:
        first = Label(bound[name][0].span, "the first")
        found.error("E0303", f"`{call.function.text}` is given `{name}` twice", span, "the second", also=[first])
    return name not in bound
