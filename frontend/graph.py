"""Typed expressions: what a router or an expert computes for one token, as a graph of nodes."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from moec.artifact.manifest import ITEM_BYTES
from moec.diagnostics import Span


class DType(StrEnum):
    """How the elements of a tensor are stored."""

    F32 = "f32"
    BF16 = "bf16"
    F16 = "f16"
    """IEEE 754 binary16: values beyond 65504 round to infinity."""
    I32 = "i32"
    I8 = "i8"
    """Codes of quantised weights that are whole numbers; no expression has this dtype."""
    F8 = "f8E4M3FN"
    """Those that are floats of 8 bits; no expression has this dtype."""

    @property
    def nbytes(self) -> int:
        """Of an element."""
        return ITEM_BYTES[self.value]


CODES = (DType.I8, DType.F8)
"""Dtypes that no name of the language stands for."""


@dataclass(frozen=True)
class TensorType:
    """A tensor of one token (or a parameter).  `element` is what it is computed in: f32, i32 or bool.

    `slots`: the pick whose slots the last axes stand for, if the tensor is the outcome of `over`.
    """

    shape: tuple[int, ...]
    element: str = "f32"
    slots: Node | None = None

    def __str__(self) -> str:
        shape = "[" + ", ".join(map(str, self.shape)) + "]" if self.shape else "a single"
        kind = {"f32": "f32", "i32": "i32", "bool": "bool"}[self.element]
        return f"{shape} {kind}" + (" over a pick" if self.slots else "")


@dataclass(frozen=True)
class PickType:
    """Numbers of chosen experts: i32, -1 where a slot is empty.

    `over` is how many there are to choose from; `source` is the width of the axis that they were picked on, which
    `below` leaves as it was.
    """

    shape: tuple[int, ...]
    over: int
    source: int
    may_be_empty: bool = False

    def __str__(self) -> str:
        return f"a pick of [{', '.join(map(str, self.shape))}] from {self.over}"


Attribute = int | float | bool | str


@dataclass(frozen=True, eq=False)
class Node:
    """One operation.  Nodes are compared by identity; `Graph` makes equal ones the same."""

    op: str
    operands: tuple[Node, ...]
    attributes: tuple[Attribute, ...]
    type: TensorType | PickType
    span: Span = field(repr=False)


@dataclass(frozen=True)
class Constant:
    """A value that is known while checking."""

    value: int | float | bool | DType

    def __str__(self) -> str:
        if isinstance(self.value, bool):
            return f"`{str(self.value).lower()}`"
        return f"`{self.value}`"

    @property
    def kind(self) -> str:
        """What messages call it."""
        if isinstance(self.value, bool):
            return "true or false"
        if isinstance(self.value, DType):
            return "a dtype"
        return "a whole number" if isinstance(self.value, int) else "a number"


@dataclass(frozen=True)
class Unknown:
    """The value of an erroneous expression; whatever is made of it is silent."""


UNKNOWN = Unknown()
Value = Constant | Node | Unknown


def describe(value: Value) -> str:
    """A value's type in words."""
    match value:
        case Constant():
            return f"{value.kind}, {value}"
        case Node():
            return str(value.type)
    return "unknown"


class TooLarge(Exception):
    """The expressions of a layer expand to more nodes, or use more definitions, than are allowed."""


class Graph:
    """Makes nodes; the same operation on the same operands gives the same node."""

    MOST = 20_000

    def __init__(self) -> None:
        self._nodes: dict[object, Node] = {}
        self._uses = 0

    def use(self) -> None:
        """Count the use of a definition: those that make no new nodes take their time, too."""
        self._uses += 1
        if self._uses > self.MOST:
            raise TooLarge

    def node(
        self,
        op: str,
        operands: tuple[Node, ...],
        type: TensorType | PickType,
        span: Span,
        *attributes: Attribute,
    ) -> Node:
        # 1, 1.0 and True are equal in Python, and not the same attribute; repr tells nan and -0.0 apart too
        key = (op, operands, tuple(map(repr, attributes)), type)
        made = self._nodes.get(key)
        if made is None:
            if len(self._nodes) >= self.MOST:
                raise TooLarge
            made = self._nodes[key] = Node(op, operands, attributes, type, span)
        return made
