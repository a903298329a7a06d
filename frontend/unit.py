"""What is collected while a router or a group of experts is elaborated: parameters, inputs, nodes."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod

from moec.diagnostics import Label, Span
from moec.frontend.graph import DType, Graph, Node, TensorType
from moec.frontend.mistake import Mistake

LARGEST_SIZE = 2**31 - 1
"""Of one axis: sizes and indices are i32 at run time."""
LARGEST_TENSOR = 2**40
"""Elements of one parameter, all experts together."""


@dataclass(frozen=True)
class Parameter:
    """A tensor that a unit owns; for experts `shape` is that of one expert.  `name` is local to the unit.

    `linear`: it is the matrix of a linear that has no dtype of its own, and so is stored in the group's format.
    """

    name: str
    shape: tuple[int, ...]
    dtype: DType
    role: str
    span: Span = field(compare=False, repr=False)
    linear: bool = False


@dataclass(frozen=True)
class Input:
    """A value a token that the layer takes beside x."""

    name: str
    shape: tuple[int, ...]
    dtype: DType
    span: Span = field(compare=False, repr=False)


@dataclass
class Unit:
    """The router, or one group of experts, under elaboration.

    `kind` is "router" or "expert"; `count` the number of experts; `width` that of the token x.
    """

    kind: str
    dtype: DType
    width: int
    count: int
    span: Span
    graph: Graph = field(default_factory=Graph)
    parameters: dict[str, Parameter] = field(default_factory=dict)
    inputs: dict[str, Input] = field(default_factory=dict)

    def x(self) -> Node:
        """The token."""
        return self.graph.node("x", (), TensorType((self.width,)), self.span)

    def parameter(
        self, name: str, shape: tuple[int, ...], dtype: DType, role: str, span: Span, linear: bool = False
    ) -> Node:
        """Declare a parameter or buffer; raises Mistake if its name is taken or it is too large."""
        if name in self.parameters:
            raise Mistake(
                "E0203",
                f"two parameters would be called `{name}`",
                span,
                "the second",
                also=[Label(self.parameters[name].span, "the first")],
                fix="bind one of them to another name",
            )
        if prod(shape) * self.count > LARGEST_TENSOR:
            raise Mistake(
                "E0503", f"`{name}` would have {prod(shape) * self.count:,} elements", span, "more than 2^40 elements"
            )
        self.parameters[name] = Parameter(name, shape, dtype, role, span, linear)
        element = "i32" if dtype is DType.I32 else "f32"
        return self.graph.node("parameter", (), TensorType(shape, element), span, name)

    def input(self, name: str, shape: tuple[int, ...], dtype: DType, span: Span) -> Node:
        """Declare an input, or use it again; raises Mistake if it was declared otherwise."""
        known = self.inputs.setdefault(name, Input(name, shape, dtype, span))
        if (known.shape, known.dtype) != (shape, dtype):
            raise Mistake(
                "E0410",
                f"the input `{name}` is declared in two ways",
                span,
                "differs from the first",
                also=[Label(known.span, "first declared here")],
                fix="give it one shape and dtype, or two names",
            )
        element = "i32" if dtype is DType.I32 else "f32"
        return self.graph.node("input", (), TensorType(shape, element), span, name)
