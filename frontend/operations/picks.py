"""Operations that choose experts, and that read values at the choice."""

from __future__ import annotations

from moec.diagnostics import Label
from moec.frontend.graph import Constant, Node, PickType, TensorType
from moec.frontend.mistake import Mistake
from moec.frontend.operations.site import Given, Site, element_of


def top_k(site: Site, v: Given, k: Given) -> Node:
    """The k largest along the last axis, largest first; ties go to the lower position, NaN counts as largest."""
    node = site.with_axis(v)
    *lead, width = node.type.shape
    count = site.whole(k, "k")
    if count > width:
        raise Mistake(
            "E0304",
            f"`top_k` cannot choose {count} of {width}",
            k.span,
            f"k is {count}",
            also=[Label(v.span, f"this is {node.type}")],
            fix=f"k may be at most {width}",
        )
    return site.node("top_k", (node,), PickType((*lead, count), width, width), count)


def top_p(site: Site, v: Given, mass: Given, most: Given) -> Node:
    """The smallest set whose values add up to `mass`, largest first, at most `most` of them."""
    node = site.vector(v)
    width = node.type.shape[0]
    share = site.number(mass, "the mass")
    if not 0 < share <= 1:
        raise Mistake("E0304", "the mass of `top_p` lies above 0 and not above 1", mass.span, f"this is {share:g}")
    limit = site.whole(most, "the limit")
    if limit > width:
        raise Mistake(
            "E0304",
            f"`top_p` cannot choose {limit} of {width}",
            most.span,
            f"this is {limit}",
            also=[Label(v.span, f"this is {node.type}")],
            fix=f"the limit may be at most {width}",
        )
    return site.node("top_p", (node,), PickType((limit,), width, width, may_be_empty=True), share, limit)


def choose(site: Site, numbers: Given) -> Node:
    """i32 values as a pick of experts; a number that is no expert's leaves its slot empty."""
    node = site.tensor(numbers, ("i32",))
    if isinstance(numbers.value, Constant) or len(node.type.shape) > 1:
        raise Mistake(
            "E0306", "`choose` takes one i32 of a token, or a vector of them", numbers.span, f"this is {node.type}"
        )
    count = site.unit.count
    return site.node("choose", (node,), PickType(node.type.shape or (1,), count, count, may_be_empty=True))


def below(site: Site, pick: Given, count: Given) -> Node:
    """Empties the slots whose number is `count` or more."""
    node = site.pick(pick)
    limit = site.whole(count, "the count")
    assert isinstance(node.type, PickType)
    if limit > node.type.over:
        raise Mistake(
            "E0304",
            f"`below` cannot keep {limit} of {node.type.over}",
            count.span,
            f"this is {limit}",
            also=[Label(pick.span, f"this is {node.type}")],
        )
    return site.node("below", (node,), PickType(node.type.shape, limit, node.type.source, may_be_empty=True), limit)


def chosen(site: Site, pick: Given) -> Node:
    """A mask of what the pick holds."""
    node = site.pick(pick)
    assert isinstance(node.type, PickType)
    return site.node("chosen", (node,), TensorType((*node.type.shape[:-1], node.type.over), "bool"))


def over(site: Site, v: Given, pick: Given) -> Node:
    """The values at the pick's slots; 0 where a slot is empty."""
    picked = site.pick(pick)
    node = site.with_axis(v, ("f32", "i32"))
    type_ = picked.type
    assert isinstance(type_, PickType)
    if node.type.shape[:-1] != type_.shape[:-1] or node.type.shape[-1] not in (type_.over, type_.source):
        wide = " or ".join(
            "[" + ", ".join(map(str, (*type_.shape[:-1], n))) + "]" for n in dict.fromkeys((type_.over, type_.source))
        )
        raise Mistake(
            "E0307",
            "the values do not lie on the axis that was picked from",
            v.span,
            f"this is {node.type}; {wide} is needed",
            also=[Label(pick.span, f"this is {type_}")],
        )
    return site.node("take", (node, picked), TensorType(type_.shape, element_of(node), picked))
