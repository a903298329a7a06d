"""A checked layer: everything that lowering, the artifact and the runtime need to know about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from moec.diagnostics import Diagnostic, Source, Span
from moec.frontend.graph import DType, Node


@dataclass(frozen=True)
class Tensor:
    """A named tensor at the layer's edge.

    In `shape`, None is the number of tokens.  `role` is "input", "output", "parameter" or "buffer".
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: DType
    role: str


@dataclass(frozen=True)
class Capacity:
    """Every expert keeps max(minimum, ceil(factor * tokens * slots / experts)) rows; the others are dropped."""

    factor: float
    minimum: int
    order: Literal["token", "choice", "score"]


@dataclass(frozen=True)
class Router:
    """Chooses experts for a token.  `weight` is aligned with the pick's slots, or has one value an expert.

    `slots`: the most experts a token can have.
    """

    dtype: DType
    slots: int
    pick: Node
    weight: Node


@dataclass(frozen=True)
class Experts:
    """A group of experts of one form.  `output` is an expert's result for one token, [d] in f32."""

    name: str
    count: int
    dtype: DType
    output: Node
    span: Span = field(repr=False)


@dataclass(frozen=True)
class Layer:
    """A layer with all parameters resolved.

    `sources` holds the main file first, then every file that was imported, the standard library's included.
    `options` are the layer's own parameters (dtypes as their names).  `parameters` holds buffers too; those of a group
    have the number of its experts as their first axis.  `tokens` is None where no token is ever dropped.
    """

    name: str
    sources: tuple[Source, ...] = field(repr=False)
    options: dict[str, int | float | bool | str]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    parameters: tuple[Tensor, ...]
    router: Router = field(repr=False)
    routed: Experts = field(repr=False)
    shared: tuple[Experts, ...] = field(repr=False)
    tokens: Capacity | None
    warnings: tuple[Diagnostic, ...]
    span: Span = field(repr=False)

    @property
    def width(self) -> int:
        """The width d of a token."""
        width = self.inputs[0].shape[1]
        return width or 0

    @property
    def dtype(self) -> DType:
        """The dtype of x, of the experts and of the result."""
        return self.inputs[0].dtype
