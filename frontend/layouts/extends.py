"""Layouts that extend others: what such a layout says of a thing stands in the place of what the other says of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from moec.diagnostics import Collector, did_you_mean
from moec.frontend import ast
from moec.frontend.declarations import (
    CombineUse,
    LayoutDeclaration,
    LayoutStatement,
    RequireUse,
    SendUse,
    ShardUse,
    SpecialiseUse,
    WrittenLayout,
)
from moec.frontend.mistake import Mistake


def extend(found: Collector, written: Sequence[WrittenLayout]) -> tuple[LayoutDeclaration, ...]:
    """The layouts with what they extend; those that extend nothing that is there are reported and left out."""
    known = {one.name.text: one for one in reversed(written)}
    made = (_whole(found, one, known) for one in written)
    return tuple(one for one in made if one is not None)


def report(found: Collector, mistake: Mistake, statement: LayoutStatement, layout: LayoutDeclaration) -> None:
    """Report what is wrong with a statement of a layout, which may stand in one that it extends."""
    own = layout.span
    if not (own.start <= statement.span.start and statement.span.end <= own.end):
        mistake.notes = [*mistake.notes, f"layout `{layout.name.text}` extends the one in which this stands"]
    mistake.report(found)


def _whole(found: Collector, layout: WrittenLayout, known: dict[str, WrittenLayout]) -> LayoutDeclaration | None:
    chain = [layout]
    while (base := chain[-1].base) is not None:
        following = known.get(base.text)
        if following is None:
            found.error(
                "E0472",
                f"there is no layout `{base.text}`",
                base.span,
                "unknown layout",
                fix=did_you_mean(base.text, known, base.span),
            )
            return None
        if following in chain:
            ring = [one.name.text for one in chain[chain.index(following) :]]
            if layout.name.text != min(ring):
                return None  # it is reported once, at the first in the alphabet
            found.error(
                "E0472",
                "layouts extend each other in a ring",
                base.span,
                notes=[" extends ".join([*ring, ring[0]])],
                fix="let one of them begin with `for LAYER`",
            )
            return None
        chain.append(following)
    body: tuple[LayoutStatement, ...] = ()
    for one in reversed(chain):
        said = {_about(statement) for statement in one.body}
        body = (*(statement for statement in body if _about(statement) not in said), *one.body)
    mesh, load = (_first(names) for names in ((one.mesh for one in chain), (one.load for one in chain)))
    layers = [one.layer for one in chain if one.layer is not None]  # only the last one does not extend, and so names it
    whole = not any(one.damage for one in chain)
    return LayoutDeclaration(layout.span, layout.name, layers[0], mesh, load, body, layout.damage, whole)


def _first(names: Iterable[ast.Name | None]) -> ast.Name | None:
    return next((name for name in names if name is not None), None)


def _about(statement: LayoutStatement) -> tuple[str, str]:
    """What a statement speaks of."""
    match statement:
        case ShardUse():
            return "shard", f"{statement.group.text} as {statement.kind.text}"
        case SendUse():
            return "send", statement.direction.text
        case CombineUse():
            return "combine", ""
        case RequireUse():
            return "require", " ".join(n.text for n in ast.walk(statement.condition) if isinstance(n, ast.Name))
        case SpecialiseUse():
            call = statement.call
            return "specialise", call.function.text if isinstance(call, ast.Call) else ""
    return type(statement).__name__, ""
