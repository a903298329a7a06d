"""Shapes are aligned at their last axes; an axis of 1, or a missing one, stretches."""

from __future__ import annotations

from moec.diagnostics import Label
from moec.frontend.graph import Node, TensorType
from moec.frontend.mistake import Mistake
from moec.frontend.operations.site import Given, Site, shape_of


def joint_shape(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...] | None:
    """The shape that both stretch to, or None."""
    rank = max(len(a), len(b))
    a, b = (1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b
    if any(m != n and 1 not in (m, n) for m, n in zip(a, b, strict=True)):
        return None
    return tuple(n if m == 1 else m for m, n in zip(a, b, strict=True))


def joint(site: Site, given: list[Given], nodes: list[Node], element: str) -> TensorType:
    """The type of an elementwise result; raises Mistake if shapes or picks do not agree."""
    shape: tuple[int, ...] = ()
    for i, node in enumerate(nodes):
        both = joint_shape(shape, shape_of(node))
        if both is None:
            others = [
                Label(g.span, f"this is {n.type}")
                for g, n in zip(given[:i], nodes[:i], strict=True)
                if joint_shape(shape_of(n), shape_of(node)) is None
            ]
            raise Mistake(
                "E0301",
                f"`{site.name}` cannot join {_shape(shape)} and {_shape(shape_of(node))}",
                given[i].span,
                f"this is {node.type}",
                also=others,
                notes=["axes are matched from the last; they must be equal, or 1"],
                fix=_how(shape, shape_of(node)),
            )
        shape = both
    picks = {slots: g for g, node in zip(given, nodes, strict=True) if (slots := _slots(node))}
    if len(picks) > 1:
        (_, first), (_, second), *_ = picks.items()
        raise Mistake(
            "E0307",
            f"`{site.name}` joins values over two different picks",
            second.span,
            "over another pick",
            also=[Label(first.span, "over one pick")],
            fix="take both `over` the same pick",
        )
    slots = next(iter(picks), None)
    keeps = slots is not None and shape[-1:] == slots.type.shape[-1:]
    return TensorType(shape, element, slots if keeps else None)


def _slots(node: Node) -> Node | None:
    return node.type.slots if isinstance(node.type, TensorType) else None


def _shape(shape: tuple[int, ...]) -> str:
    return "[" + ", ".join(map(str, shape)) + "]"


def _how(a: tuple[int, ...], b: tuple[int, ...]) -> str | None:
    short, long = sorted((a, b), key=len)
    if len(short) + 1 == len(long) and short == long[:-1]:
        return f"`column(v)` makes {_shape((*short, 1))} of {_shape(short)}, which stretches to {_shape(long)}"
    return None
