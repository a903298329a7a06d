"""Reads which routed experts a statement speaks of: `routed[3, 8..15]`."""

from __future__ import annotations

from moec.diagnostics import Label, did_you_mean
from moec.frontend import ast
from moec.frontend.check_layer import CheckedLayer
from moec.frontend.layouts.conditions import number_of
from moec.frontend.mistake import Mistake
from moec.frontend.model import Experts


def experts_named(chosen: ast.Expr, checked: CheckedLayer, code: str) -> tuple[int, ...]:
    """The numbers of `routed[3, 8..15]`, ascending.  Raises Mistake (`code`) and UnknownNumber."""
    routed = checked.layer.routed
    if not isinstance(chosen, ast.Index) or not isinstance(chosen.base, ast.Name):
        fix = f"write `{routed.name}[0..{min(3, routed.count - 1)}]`"
        raise Mistake(code, "these are no experts", chosen.span, fix=fix)
    require_routed(chosen.base, routed, code)
    numbers: set[int] = set()
    for item in chosen.indices:
        ends = (item.first, item.last) if isinstance(item, ast.Range) else (item, item)
        first, last = (_expert(end, checked, code) for end in ends)
        if first > last:
            raise Mistake(code, "this range is empty", item.span, f"{first} is above {last}", fix="turn it around")
        numbers.update(range(first, last + 1))
    return tuple(sorted(numbers))


def require_routed(name: ast.Expr, routed: Experts, code: str) -> None:
    """Raises Mistake (`code`) unless this names the routed experts."""
    if not isinstance(name, ast.Name) or name.text != routed.name:
        raise Mistake(
            code,
            "only routed experts lie at one device or another",
            name.span,
            f"this is not `{routed.name}`",
            also=[Label(routed.span, "the routed experts")],
            fix=did_you_mean(name.text, (routed.name,), name.span) if isinstance(name, ast.Name) else None,
        )


def _expert(expr: ast.Expr, checked: CheckedLayer, code: str) -> int:
    number = number_of(expr, checked.constants, code, "the number of an expert")
    count = checked.layer.routed.count
    if not isinstance(number, int) or not 0 <= number < count:
        said = f"`{checked.layer.routed.name}` has the experts 0 to {count - 1:,}"
        raise Mistake(code, said, expr.span, f"this is {number}")
    return number
