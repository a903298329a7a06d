"""What a fixed-point layer is to PyTorch: its tensors, and which of its parameters each number comes from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tensor:
    """A parameter or buffer of the layer: its dotted name, shape, dtype as in the IR; `role` says which it is."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    role: str


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
    """The layer's tensors by name.

    x, y       input and result, [T, d], both of `dtype`
    task       the input i32 [T] that chooses a gate; None where there is one gate
    router     the gates' linear; those of all tasks are stacked along its output channels
    selection  the buffer [E] that is added to scores for the choice; None where there is none
    routed     the routed experts
    shared     groups of shared experts, in the order in which they are added up
    tensors    all parameters and buffers, in the order of the layer's arguments
    """

    x: str
    y: str
    dtype: str
    task: str | None
    router: Source
    selection: str | None
    routed: Group
    shared: tuple[Group, ...]
    tensors: tuple[Tensor, ...]
