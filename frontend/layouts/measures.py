"""Which values the measures of a layer can take, and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import prod

from moec.artifact.policy import DEFAULT_VARIANTS, Condition
from moec.artifact.traffic import MOST_TOKENS, Load
from moec.frontend.graph import Node, PickType
from moec.frontend.layouts.cells import Axis, Scaled, Space
from moec.frontend.model import Layer, Tensor

_PANEL, _ALIGNED = 128, 4096
"""Generous: rows and columns that kernels fill up to, and bytes between two weights."""


@dataclass(frozen=True)
class Bounds:
    """The least and the most that a measure can be, and a sentence that says why."""

    low: Fraction
    high: Fraction
    why: str


def bounds_of(
    layer: Layer, load: Load | None, lowest_factor: float | None, copies: int = DEFAULT_VARIANTS, paged: bool = False
) -> Mapping[str, Bounds]:
    """The bounds of every measure.

    lowest_factor  the least that the capacity may become, None without one
    copies         how many variants may have weights of their own
    paged          whether weights may lie on disk
    """
    experts, slots = layer.routed.count, layer.router.slots
    distinct = _distinct(layer.router.pick)
    # an expert takes one slot of a token at most; where all K are taken its share of them is at most 1 / K
    peak = Fraction(1, slots if distinct and _full(layer.router.pick) else 1)
    fewest = 0 if load is None or load.tokens[0] == 0 else 1  # calls without tokens leave all experts empty
    chosen = fewest * (min(slots, experts) if distinct and _full(layer.router.pick) else 1)
    each = f"{experts:,} experts, {'up to ' * (not _full(layer.router.pick))}{slots} for each token"
    return {
        "tokens": _tokens(load),
        "imbalance": Bounds(
            Fraction(1),
            max(Fraction(1), experts * peak),
            f"it lies between 1 and {_shown(max(Fraction(1), experts * peak))}: {each}",
        ),
        "share": Bounds(
            Fraction(1, experts),
            max(Fraction(1, experts), peak),
            f"it lies between {_shown(Fraction(1, experts))} and {_shown(max(Fraction(1, experts), peak))}: {each}",
        ),
        "empty": Bounds(
            Fraction(0),
            1 - Fraction(chosen, experts),
            f"it lies between 0 and {_shown(1 - Fraction(chosen, experts))}: {each}",
        ),
        "overflow": _overflow(experts, slots if distinct else 1, lowest_factor),
        "memory": _memory(layer, copies, paged),
    }


def space_of(bounds: Mapping[str, Bounds], experts: int, conditions: Iterable[Condition]) -> Space:
    """For questions about these conditions.  An imbalance is a share times the number of experts."""
    axes = {name: Axis(one.low, one.high) for name, one in bounds.items() if name != "share"}
    measures = {name: Scaled(name) for name in axes}
    return Space(axes, measures | {"share": Scaled("imbalance", Fraction(experts))}, conditions)


def _tokens(load: Load | None) -> Bounds:
    if load is None:
        return Bounds(Fraction(0), Fraction(MOST_TOKENS), "it lies between 0 and 2^31")
    low, high = load.tokens
    return Bounds(Fraction(low), Fraction(high), f"`{load.name}` has {low:,} to {high:,} tokens a call")


def _overflow(experts: int, slots: int, factor: float | None) -> Bounds:
    """With a capacity of `factor` an expert keeps at least factor * T * K / E of the T tokens that it gets at most."""
    if factor is None:
        return Bounds(Fraction(0), Fraction(0), "the layer drops no tokens")
    most = max(Fraction(0), 1 - Fraction(repr(factor)) * slots / experts)
    if not most:
        return Bounds(Fraction(0), Fraction(0), f"with a capacity of {factor:g} an expert has room for all tokens")
    return Bounds(Fraction(0), most, f"with a capacity of {factor:g} at most {_shown(most)} of the choices are dropped")


def _memory(layer: Layer, copies: int, paged: bool) -> Bounds:
    """Kernels keep every weight, and what they add is bounded: they fill up panels and may widen elements to f32."""
    given = sum(prod(_sizes(one)) * one.dtype.nbytes for one in layer.parameters)
    most = sum(prod(_sizes(one)[:-2]) * prod(map(_filled, _sizes(one)[-2:])) * 4 + _ALIGNED for one in layer.parameters)
    quantised = any(group.quantised for group in (layer.routed, *layer.shared))
    least = 0 if paged or quantised else given
    each = f"the layer's weights are {given:,} bytes"
    packed = f"the kernels' form of them at most {most:,}"
    return Bounds(
        Fraction(least),
        Fraction((1 + copies) * most),
        f"{each}, {packed}" + (f", and {copies} variants may have copies" if copies else ""),
    )


def _sizes(parameter: Tensor) -> tuple[int, ...]:
    return tuple(size or 0 for size in parameter.shape)


def _filled(size: int) -> int:
    return -(-size // _PANEL) * _PANEL


def _full(pick: Node) -> bool:
    return isinstance(pick.type, PickType) and not pick.type.may_be_empty


def _distinct(pick: Node) -> bool:
    """Does a pick hold no expert twice?  Only `choose` takes numbers as they come."""
    nodes = [pick]
    while nodes:
        node = nodes.pop()
        if node.op == "choose":
            return False
        nodes += [one for one in node.operands if isinstance(one.type, PickType)]
    return True


def _shown(value: Fraction) -> str:
    return str(value) if value.denominator == 1 else f"{float(value):.4g}"
