"""Reads `shard GROUP over AXES as ep|tp|dp`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moec.diagnostics import Fix, Label, Span, did_you_mean
from moec.frontend import ast
from moec.frontend.check_layer import CheckedLayer
from moec.frontend.declarations import Option, ShardUse
from moec.frontend.graph import Node, TensorType
from moec.frontend.layouts.meshes import CheckedMesh
from moec.frontend.layouts.quantities import whole
from moec.frontend.mistake import Mistake
from moec.frontend.model import Experts

TOKENS = "tokens"
KINDS = {"ep": "whole experts", "tp": "the hidden dimension of every expert", "dp": "tokens"}
FORM = "shard routed over node * gpu as ep"
MOST_LISTED = 64
"""Positions up to which a fix lists the experts of each."""


@dataclass(frozen=True)
class Shard:
    """A statement that has been read; axes outermost first, `counts` and `slots` with their places."""

    use: ShardUse
    kind: str
    axes: tuple[str, ...]
    counts: tuple[tuple[int, ...], Span] | None = None
    slots: tuple[int, Span] | None = None


def read_shard(use: ShardUse, checked: CheckedLayer, mesh: CheckedMesh) -> Shard:
    """Raises Mistake and UnknownNumber."""
    layer = checked.layer
    axes = _axes(use.axes, mesh)
    kinds = _kinds(use, checked)
    if use.kind.text not in kinds:
        near = did_you_mean(use.kind.text, kinds, use.kind.span)
        listed = " or ".join(f"`{kind}`" for kind in kinds)
        raise Mistake(
            "E0465",
            f"`{use.group.text}` is cut as {listed}",
            use.kind.span,
            f"`{use.kind.text}` would cut {KINDS[use.kind.text]}" if use.kind.text in KINDS else "unknown",
            fix=near or Fix(f"write `{kinds[0]}`", use.kind.span, kinds[0]),
        )
    refuse_approx(use.approx, use.kind.text == "tp", use.span, "shard", _WHY_TP)
    counts, slots = _options(use, checked, layer.routed)
    if use.kind.text == "ep":
        _divisible(use, layer.routed, mesh.mesh.size(axes), counts)
        if layer.routed.subsets:
            raise Mistake(
                "E0465",
                "experts of different formats cannot be spread over a mesh",
                use.group.span,
                "every device runs one program, in which all experts look alike",
                also=[Label(layer.routed.span, "some of these have another format")],
                fix="give all routed experts one format",
            )
    if use.kind.text == "tp":
        group = next(one for one in (layer.routed, *layer.shared) if one.name == use.group.text)
        _cuttable(use, group, mesh.mesh.size(axes))
    return Shard(use, use.kind.text, axes, counts, slots)


_WHY_TP = ("partial sums of a cut expert are added up in another order", "nothing is approximated")


def refuse_approx(approx: bool, needed: bool, span: Span, word: str, why: tuple[str, str]) -> None:
    """Raises Mistake where `approx` is missing or too much in front of `word`; `why` it is needed, or it is not."""
    head = Span(span.source, span.start, span.start + len("approx" if approx else word))
    if needed and not approx:
        fix = Fix(f"say that results may change: `approx {word} ...`", head, f"approx {word}")
        raise Mistake("E0464", f"{why[0]}, so results change", head, "this promises the same bits", fix=fix)
    if approx and not needed:
        rest = span.source.text[head.end : span.end]
        blank = Span(span.source, head.start, head.end + len(rest) - len(rest.lstrip(" \t")))
        raise Mistake("E0464", "the results are the same bits", head, why[1], fix=Fix("remove `approx`", blank, ""))


def axis_named(name: ast.Name, mesh: CheckedMesh) -> str:
    """The axis that this is.  Raises Mistake."""
    if name.text not in mesh.mesh.names:
        listed = ", ".join(f"`{one}`" for one in mesh.mesh.names)
        raise Mistake(
            "E0462",
            f"mesh `{mesh.mesh.name}` has no axis `{name.text}`",
            name.span,
            "unknown axis",
            also=[Label(mesh.span, f"it has {listed}")],
            fix=did_you_mean(name.text, mesh.mesh.names, name.span),
        )
    return name.text


def _axes(expr: ast.Expr, mesh: CheckedMesh) -> tuple[str, ...]:
    """The axes of `node * gpu`, outermost first; their order in the file does not matter."""
    names: dict[str, ast.Name] = {}
    pending = [expr]
    while pending:
        one = pending.pop()
        match one:
            case ast.Binary(op="*"):
                pending += [one.right, one.left]
            case ast.Name():
                axis = axis_named(one, mesh)
                if axis in names:
                    first = Label(names[axis].span, "here before")
                    said = f"axis `{axis}` is used twice"
                    raise Mistake("E0462", said, one.span, "again", also=[first], fix="name each axis once")
                names[axis] = one
            case _:
                raise Mistake("E0462", "these are no axes", one.span, fix="write axes with `*` between them")
    return mesh.mesh.ordered(names)


def _kinds(use: ShardUse, checked: CheckedLayer) -> Sequence[str]:
    """In which ways what a statement names can be cut.  Raises Mistake for what the layer does not have."""
    layer = checked.layer
    shared = [group.name for group in layer.shared]
    if use.group.text == layer.routed.name:
        return ("ep", "tp")
    if use.group.text in shared:
        return ("tp",)
    if use.group.text == TOKENS:
        return ("dp",)
    known = (TOKENS, layer.routed.name, *shared)
    raise Mistake(
        "E0465",
        f"layer `{layer.name}` has no `{use.group.text}` that could be cut",
        use.group.span,
        "unknown",
        notes=[f"there is {', '.join(f'`{one}`' for one in known)}"],
        fix=did_you_mean(use.group.text, known, use.group.span),
    )


def _options(
    use: ShardUse, checked: CheckedLayer, routed: Experts
) -> tuple[tuple[tuple[int, ...], Span] | None, tuple[int, Span] | None]:
    counts: tuple[tuple[int, ...], Span] | None = None
    slots: tuple[int, Span] | None = None
    for option in use.options:
        name = option.name if isinstance(option, Option) else option.function if isinstance(option, ast.Call) else None
        span = option.value.span if isinstance(option, Option) else option.span
        if name is None or name.text not in ("counts", "slots") or use.kind.text != "ep":
            where = "the options of `as ep`" if use.kind.text == "ep" else "for `as ep` alone"
            raise Mistake(
                "E0465",
                f"`counts(...)` and `slots N` are {where}",
                name.span if name else span,
                "this is something else" if use.kind.text == "ep" else f"this is `as {use.kind.text}`",
                fix=did_you_mean(name.text, ("counts", "slots"), name.span) if name else None,
            )
        if (counts if name.text == "counts" else slots) is not None:
            raise Mistake("E0465", f"`{name.text}` is given twice", span, "the second", fix="remove one")
        if isinstance(option, ast.Call) and name.text == "counts":
            values = [one.value for one in option.arguments if one.name is None]
            if len(values) < len(option.arguments):
                raise Mistake("E0465", "the numbers of `counts` have no names", span, fix="write `counts(10, 6)`")
            numbers = (_count(value, checked, routed) for value in values)
            counts = tuple(numbers), span
        elif isinstance(option, Option) and name.text == "slots":
            slots = _count(option.value, checked, routed), span
        else:
            raise Mistake("E0465", "an option does not have its form", span, fix="write `counts(10, 6)` or `slots 24`")
    return counts, slots


def _count(expr: ast.Expr, checked: CheckedLayer, routed: Experts) -> int:
    return whole(expr, checked.constants, "E0463", "a number of experts", 0, routed.count)


def _divisible(use: ShardUse, routed: Experts, positions: int, counts: tuple[tuple[int, ...], Span] | None) -> None:
    """Raises Mistake unless every expert has one position."""
    group = Label(routed.span, f"{routed.count:,} experts")
    if counts is None:
        if routed.count % positions == 0:
            return
        each, more = divmod(routed.count, positions)
        uneven = ", ".join(str(each + (position < more)) for position in range(positions))
        at = use.kind.span
        raise Mistake(
            "E0463",
            f"{routed.count:,} experts cannot be divided evenly over {positions:,} devices",
            use.axes.span,
            f"{positions:,} positions",
            also=[group],
            fix=Fix(f"say how many each has: `as ep, counts({uneven})`", at, f"ep, counts({uneven})")
            if positions <= MOST_LISTED
            else "shard over other axes, or say how many each position has with `counts(...)`",
        )
    numbers, span = counts
    if len(numbers) != positions:
        axes = Label(use.axes.span, f"{positions:,} positions")
        said = "`counts` has one number for each position"
        raise Mistake("E0463", said, span, f"{len(numbers):,} numbers", also=[axes])
    if sum(numbers) != routed.count:
        less = routed.count - sum(numbers)
        fix = f"{abs(less):,} {'are missing' if less > 0 else 'are too many'}"
        raise Mistake(
            "E0463", "the counts do not add up", span, f"these are {sum(numbers):,} experts", also=[group], fix=fix
        )


def _cuttable(use: ShardUse, group: Experts, parts: int) -> None:
    """Raises Mistake unless the hidden dimension of these experts can be cut into equal parts."""
    down = _outermost(group.output)
    types = {node.operands[0].type for node in down if node.operands[0].op != "x"}
    widths = {type_.shape[0] for type_ in types if isinstance(type_, TensorType)}
    if not widths:
        raise Mistake(
            "E0465",
            f"the experts of `{group.name}` have no hidden dimension that could be cut",
            use.group.span,
            also=[Label(group.span, "no linear of a linear")],
            fix="leave them whole",
        )
    for width in sorted(widths):
        if width % parts:
            raise Mistake(
                "E0463",
                f"{width:,} hidden numbers cannot be cut into {parts:,} equal parts",
                use.axes.span,
                f"{parts:,} positions",
                also=[Label(group.span, f"{width:,} wide inside")],
                fix="cut over fewer devices, or choose another width",
            )
        inner = group.format.group if group.format else None
        if inner is not None and width // parts % inner:
            raise Mistake(
                "E0463",
                f"a part would end inside of a group of {inner} that shares a scale",
                use.axes.span,
                f"{width // parts:,} numbers to each part",
                also=[Label(group.span, f"groups of {inner}")],
                fix="choose smaller groups",
            )


def _outermost(output: Node) -> list[Node]:
    """The linears that nothing but elementwise operations follow."""
    found: list[Node] = []
    seen: set[int] = set()
    pending = [output]
    while pending:
        node = pending.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if node.op == "linear":
            found.append(node)
        else:
            pending += node.operands
    return found
