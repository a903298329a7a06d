"""Operations that rearrange: split, merge, column, concat, indexing."""

from __future__ import annotations

from math import prod

from moec.diagnostics import Label
from moec.frontend.graph import Constant, Node, PickType, TensorType
from moec.frontend.mistake import Mistake
from moec.frontend.operations.site import Given, Site, element_of

ANY = ("f32", "i32", "bool")


def split(site: Site, v: Given, groups: Given) -> Node:
    """[..., n] to [..., g, n/g]: g groups of neighbours."""
    node = site.with_axis(v, ANY)
    count = site.whole(groups, "the number of groups")
    *lead, width = node.type.shape
    if width % count:
        divisors = [n for n in range(1, width + 1) if width % n == 0] if width <= 4096 else []
        near = sorted(divisors, key=lambda n: (abs(n - count), n))[:2]
        raise Mistake(
            "E0305",
            f"{width} values cannot be split into {count} equal groups",
            groups.span,
            f"{width} is not a multiple of {count}",
            also=[Label(v.span, f"this is {node.type}")],
            fix=f"divisors of {width} near {count} are {' and '.join(map(str, sorted(near)))}" if near else None,
        )
    return site.node("reshape", (node,), TensorType((*lead, count, width // count), element_of(node)))


def merge(site: Site, v: Given) -> Node:
    """Makes one axis of all; of a pick in groups, one pick among all groups."""
    node = v.value
    if isinstance(node, Node) and isinstance(node.type, PickType):
        return _merge_pick(site, v, node, node.type)
    node = site.with_axis(v, ANY)
    assert isinstance(node.type, TensorType)
    slots = node.type.slots
    if slots is not None:
        # the values now stand for the slots of the merged pick
        same = isinstance(slots.type, PickType) and slots.type.shape == node.type.shape and len(slots.type.shape) == 2
        slots = _merge_pick(site, v, slots, slots.type) if same and isinstance(slots.type, PickType) else None
    return site.node("reshape", (node,), TensorType((prod(node.type.shape),), element_of(node), slots))


def _merge_pick(site: Site, v: Given, node: Node, type_: PickType) -> Node:
    if len(type_.shape) != 2:
        raise Mistake(
            "E0306",
            "`merge` of a pick needs one pick a group",
            v.span,
            f"this is {type_}",
            notes=["picks in groups come from `top_k(split(v, groups), k)`"],
        )
    groups, slots = type_.shape
    merged = PickType((groups * slots,), groups * type_.over, groups * type_.over, type_.may_be_empty)
    if type_.over != type_.source:
        raise Mistake("E0307", "`merge` comes before `below`", v.span, "slots of this pick were emptied by `below`")
    return site.node("merge_pick", (node,), merged)


def column(site: Site, v: Given) -> Node:
    """[..., n] to [..., n, 1]."""
    node = site.tensor(v, ANY)
    return site.node("reshape", (node,), TensorType((*node.type.shape, 1), element_of(node)))


def concat(site: Site, first: Given, *rest: Given) -> Node:
    """Puts tensors one behind another along their last axis."""
    given = [first, *rest]
    nodes = [site.with_axis(g) for g in given]
    lead = nodes[0].type.shape[:-1]
    for g, node in zip(given, nodes, strict=True):
        if node.type.shape[:-1] != lead:
            raise Mistake(
                "E0301",
                "`concat` joins tensors that differ in their last axis only",
                g.span,
                f"this is {node.type}",
                also=[Label(first.span, f"this is {nodes[0].type}")],
            )
    width = sum(node.type.shape[-1] for node in nodes)
    return site.node("concat", tuple(nodes), TensorType((*lead, width)))


def index(site: Site, base: Given, at: Given) -> Node:
    """base[at] on the first axis; `at` is a number, or an i32 input (one a token)."""
    node = site.with_axis(base, ANY)
    first, *rest = node.type.shape
    type_ = TensorType(tuple(rest), element_of(node))
    if isinstance(at.value, Constant):
        number = site.whole(at, "an index", low=-(2**31))
        if not 0 <= number < first:
            raise Mistake(
                "E0309",
                f"index {number} is outside of an axis of {first}",
                at.span,
                f"0 to {first - 1} are inside",
                also=[Label(base.span, f"this is {node.type}")],
                fix=f"write {first + number} to count from the end" if 0 <= first + number < first else None,
            )
        return site.node("index", (node,), type_, number)
    if at.value.op != "input" or at.value.type != TensorType((), "i32"):
        raise Mistake(
            "E0309",
            "a tensor is indexed by a whole number, or by an input of one i32 a token",
            at.span,
            f"this is {at.value.type}",
            notes=["only an input's values are checked against the table when the layer runs"],
            fix="declare it with `input NAME : i32`; values at the chosen experts are `values over pick`",
        )
    return site.node("index_input", (node, at.value), type_)
