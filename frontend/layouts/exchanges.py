"""Reads what a layout says of the exchanges: `overlap`, `approx send` and `approx combine per`."""

from __future__ import annotations

from moec.artifact.parallel import DIRECTIONS, MOST_CHUNKS, SEND_BYTES, Overlap
from moec.diagnostics import Label, did_you_mean
from moec.frontend import ast
from moec.frontend.check_layer import CheckedLayer
from moec.frontend.declarations import CombineUse, OverlapUse, SendUse
from moec.frontend.layouts.meshes import CheckedMesh
from moec.frontend.layouts.quantities import whole
from moec.frontend.layouts.shards import Shard, axis_named, refuse_approx
from moec.frontend.mistake import Mistake

SUM_BYTES = 4
"""An element of what `combine` sends: experts' results stay f32 until they are added up."""


def read_overlap(use: OverlapUse, checked: CheckedLayer) -> Overlap:
    """Raises Mistake and UnknownNumber."""
    seen: dict[str, ast.Name] = {}
    for direction in use.directions:
        _direction(direction, "E0468")
        if direction.text in seen:
            first = Label(seen[direction.text].span, "the first")
            raise Mistake("E0468", f"`{direction.text}` stands here twice", direction.span, also=[first],
                          fix="remove one")  # fmt: skip
        seen[direction.text] = direction
    shared = [group.name for group in checked.layer.shared]
    for name in use.groups:
        if name.text not in shared:
            listed = ", ".join(f"`{one}`" for one in shared)
            raise Mistake(
                "E0468",
                "an exchange overlaps with shared experts",
                name.span,
                "these are none",
                notes=[f"the layer has {listed}" if shared else "the layer has no shared experts"],
                fix=did_you_mean(name.text, shared, name.span) or (None if shared else "leave `with` out"),
            )
    missing = [one for one in shared if one not in {name.text for name in use.groups}]
    if use.groups and missing:
        span, rest = use.groups[-1].span, ", ".join(missing)
        raise Mistake("E0468", "shared experts are computed all at once", span, "these are some of them",
                      fix=f"write `with {', '.join(shared)}`", notes=[f"`{rest}` would be missing"])  # fmt: skip
    chunks = None
    if use.chunks is not None:
        chunks = whole(use.chunks, checked.constants, "E0468", "the number of chunks", 1, MOST_CHUNKS)
    return Overlap(tuple(one for one in DIRECTIONS if one in seen), bool(use.groups), chunks)


def read_send(use: SendUse, checked: CheckedLayer, mesh: CheckedMesh, ep: Shard | None) -> tuple[str, str]:
    """The direction, and to what its rows are rounded.  Raises Mistake."""
    _direction(use.direction, "E0469")
    why = "rows are rounded before they are sent"
    refuse_approx(use.approx, True, use.span, "send", (why, ""))
    if use.format.text not in SEND_BYTES:
        begins = [one for one in SEND_BYTES if one.startswith(use.format.text)]
        raise Mistake(
            "E0469",
            f"rows cannot be sent as `{use.format.text}`",
            use.format.span,
            "unknown",
            notes=[f"they can be sent as {', '.join(f'`{one}`' for one in SEND_BYTES)}"],
            fix=did_you_mean(begins[0] if begins else use.format.text, SEND_BYTES, use.format.span),
        )
    dispatch = use.direction.text == "dispatch"
    has = checked.layer.dtype.nbytes if dispatch else SUM_BYTES
    if SEND_BYTES[use.format.text] >= has:
        raise Mistake(
            "E0469",
            f"rows are no wider than `{use.format.text}` already",
            use.format.span,
            f"x is {checked.layer.dtype}",
            also=[Label(checked.layer.routed.span, "by the dtype of the experts")],
            fix="remove the statement: the same bytes travel without it",
        )
    if ep is None:
        name = checked.layer.routed.name
        raise Mistake(
            "E0469",
            "no rows travel to experts elsewhere in this layout",
            use.span,
            f"every device has a part of each expert of `{name}`",
            fix=f"add `shard {name} over {' * '.join(mesh.mesh.names)} as ep`, or remove this",
        )
    return use.direction.text, use.format.text


def read_partial(use: CombineUse, mesh: CheckedMesh, ep: Shard | None) -> str:
    """The axis up to which rows are added up before they travel.  Raises Mistake."""
    why = "some of a token's experts are added up before the others"
    refuse_approx(use.approx, True, use.span, "combine", (why, ""))
    axis = axis_named(use.axis, mesh)
    if ep is None or axis not in ep.axes:
        raise Mistake(
            "E0462",
            f"the routed experts are not cut over `{axis}`",
            use.axis.span,
            "no rows come from along this axis",
            also=[Label(ep.use.axes.span, "they are cut over these")] if ep else (),
            fix=did_you_mean(axis, ep.axes, use.axis.span) if ep else "add `shard ... as ep`",
        )
    return axis


def _direction(name: ast.Name, code: str) -> None:
    if name.text not in DIRECTIONS:
        raise Mistake(
            code,
            "the exchanges of a layer are `dispatch` and `combine`",
            name.span,
            "this is neither",
            fix=did_you_mean(name.text, DIRECTIONS, name.span),
        )
