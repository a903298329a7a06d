"""Which of a layer's parameters, as PyTorch names them, the numbers of its fixed-point form come from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from moec.fixed.spec import Expert, Layer


@dataclass(frozen=True)
class Source:
    """The names of what a linear's numbers come from.

    weight  real numbers, or codes where there is a scale; experts' are stacked along the first axis
    scale   of each channel; None where the layer quantises the weights itself
    bias    None where the linear has none
    """

    weight: str
    scale: str | None
    bias: str | None


@dataclass(frozen=True)
class Group:
    """`count` experts, whose parameters are stacked; `gate` is None where they are not gated."""

    count: int
    gate: Source | None
    up: Source
    down: Source


@dataclass(frozen=True)
class Interface:
    """Where all of a layer's numbers come from.

    task       the input i32 [T] that chooses a gate; None where there is one gate
    router     the gates' linear; those of all tasks are stacked along its output channels
    selection  the buffer [E] that is added to scores for the choice; None where there is none
    routed     the routed experts
    shared     groups of shared experts, in the order in which they are added up
    """

    task: str | None
    router: Source
    selection: str | None
    routed: Group
    shared: tuple[Group, ...]


Shapes = Iterator[tuple[str, tuple[int, ...]]]


def shapes(layer: Layer, interface: Interface) -> dict[str, tuple[int, ...]]:
    """The shape of every parameter that the layer's numbers come from, by name."""
    found = dict(_linear(interface.router, (layer.router.tasks * layer.experts, layer.width)))
    if interface.selection is not None:
        found[interface.selection] = (layer.experts,)
    found.update(_group(interface.routed, layer.routed, layer.width))
    for group in interface.shared:
        if layer.common is not None:
            found.update(_group(group, layer.common, layer.width))
    return found


def agrees(layer: Layer, interface: Interface) -> bool:
    """Whether an interface has what the layer is made of, and no more."""
    groups = [(interface.routed, layer.routed), *((g, layer.common) for g in interface.shared)]
    return (
        (interface.task is not None) == (layer.router.tasks > 1)
        and (interface.selection is not None) == layer.router.selection
        and (interface.router.bias is not None) == layer.router.bias
        and interface.router.scale is None
        and interface.routed.count == layer.experts
        and sum(group.count for group in interface.shared) == layer.shared
        and all(shape is not None and (group.gate is not None) == shape.gated for group, shape in groups)
    )


def _group(group: Group, shape: Expert, width: int) -> Shapes:
    firsts = [source for source in (group.gate, group.up) if source is not None]
    for source, size in [*((first, (shape.hidden, width)) for first in firsts), (group.down, (width, shape.hidden))]:
        for name, own in _linear(source, size):
            yield name, (group.count, *own)


def _linear(source: Source, size: tuple[int, int]) -> Shapes:
    yield source.weight, size
    for name in (source.scale, source.bias):
        if name is not None:
            yield name, size[:1]
