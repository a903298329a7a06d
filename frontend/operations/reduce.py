"""Operations along the last axis: reductions and softmax.  On values over a pick they ignore its empty slots."""

from __future__ import annotations

from collections.abc import Callable

from moec.frontend.graph import Node, PickType, TensorType
from moec.frontend.operations.site import Given, Site

REDUCTIONS = ("sum", "mean", "max_of", "min_of", "norm")


def reduction(name: str) -> Callable[..., Node]:
    """The build function of a reduction, which drops the last axis."""

    def build(site: Site, v: Given) -> Node:
        node = site.with_axis(v)
        return site.node(name, _masked(node), TensorType(node.type.shape[:-1]))

    return build


def softmax(site: Site, v: Given) -> Node:
    """exp(v) over its sum; the maximum is taken off first."""
    node = site.with_axis(v)
    assert isinstance(node.type, TensorType)
    return site.node("softmax", _masked(node), node.type)


def _masked(node: Node) -> tuple[Node, ...]:
    """The operands: the values, and the pick whose empty slots do not count, if there can be any."""
    slots = node.type.slots if isinstance(node.type, TensorType) else None
    if slots is not None and isinstance(slots.type, PickType) and slots.type.may_be_empty:
        return (node, slots)
    return (node,)
