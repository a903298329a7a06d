"""A checked layer: everything that lowering, the artifact and the runtime need to know about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from moec.artifact.parallel import Parallel
from moec.artifact.policy import Policy
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
class Loss:
    """An auxiliary loss and its weight.

    kind  "balance", of the router's probabilities, or "z", of its logits
    over  "batch": the tokens of a call; "global": those of all processes
    """

    kind: Literal["balance", "z"]
    weight: float
    over: Literal["batch", "global"]
    span: Span = field(repr=False)


@dataclass(frozen=True)
class Router:
    """Chooses experts for a token.  `weight` is aligned with the pick's slots, or has one value an expert.

    `slots`: the most experts a token can have.  `probability` and `logits` are there if a loss reads them.
    """

    dtype: DType
    slots: int
    pick: Node
    weight: Node
    probability: Node | None = None
    logits: Node | None = None


@dataclass(frozen=True)
class Format:
    """How the weights of linears are stored: as codes with scales.

    codes  the name of one in `moec.formats`
    group  how many elements along the inner dimension share a scale; None: a whole channel
    scale  the dtype of the scales
    given  codes and scales are parameters, instead of weights that are quantised while packing
    """

    codes: str
    group: int | None
    scale: DType
    given: bool = False


@dataclass(frozen=True)
class Subset:
    """Some experts of a group, by their numbers in ascending order, and how they are stored (None: not quantised)."""

    numbers: tuple[int, ...]
    format: Format | None


@dataclass(frozen=True)
class Experts:
    """A group of experts of one form.  `output` is an expert's result for one token, [d] in f32.

    dtype    of x, of the result and of what is not quantised
    format   how the weights named in `linears` are stored; None: in `dtype`
    subsets  where formats differ: all experts, in the order in which the subsets' results are added up
    """

    name: str
    count: int
    dtype: DType
    output: Node
    span: Span = field(repr=False)
    format: Format | None = None
    linears: frozenset[str] = frozenset()
    subsets: tuple[Subset, ...] = ()

    @property
    def quantised(self) -> bool:
        return self.format is not None or any(subset.format for subset in self.subsets)


@dataclass(frozen=True)
class Layout:
    """Where and when a layer runs.

    policy    how it may follow its load
    parallel  how it is spread over a mesh; None: it runs in one process
    """

    name: str
    policy: Policy
    span: Span = field(repr=False)
    parallel: Parallel | None = None


@dataclass(frozen=True)
class Layer:
    """A layer with all parameters resolved.

    `sources` holds the main file first, then every file that was imported, the standard library's included.
    `options` are the layer's own parameters (dtypes as their names).  `parameters` holds buffers too; those of a group
    have the number of its experts as their first axis.  `tokens` is None where no token is ever dropped.  `int8_rows`:
    what quantised linears multiply is rounded to int8, row by row.  `layout` is the one that was chosen, if any.
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
    int8_rows: bool = False
    losses: tuple[Loss, ...] = ()
    layout: Layout | None = None

    @property
    def width(self) -> int:
        """The width d of a token."""
        width = self.inputs[0].shape[1]
        return width or 0

    @property
    def dtype(self) -> DType:
        """The dtype of x, of the experts and of the result."""
        return self.inputs[0].dtype
