"""What a layer is to hardware: a router, experts of one shape, and the widths of its numbers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Score(StrEnum):
    """What makes scores of a router's logits."""

    SOFTMAX = "softmax"
    SIGMOID = "sigmoid"
    IDENTITY = "identity"


class Activation(StrEnum):
    """The function between an expert's linears."""

    RELU = "relu"
    GELU = "gelu"
    SILU = "silu"


class Weights(StrEnum):
    """How weights are stored, with one scale for each output channel."""

    INT8 = "int8"
    INT4 = "int4"
    TERNARY = "ternary"
    FIXED16 = "fixed16"

    @property
    def bits(self) -> int:
        """Bits of one weight in memory."""
        return {Weights.INT8: 8, Weights.INT4: 4, Weights.TERNARY: 2, Weights.FIXED16: 16}[self]


@dataclass(frozen=True)
class Router:
    """Chooses `slots` experts a token: logits, scores, the largest of them, weights.

    score     what the logits become; the experts with the largest scores are chosen, ties go to the lower number
    over      "all": scores of all experts; "chosen": scores (softmax) among the chosen ones only
    bias      the logits' linear has a bias
    selection a stored number for each expert is added to its score for the choice, and for nothing else
    slots     experts a token, K
    renorm    the weights of a token are divided by their sum
    scale     what the weights are multiplied with in the end
    tasks     gates to choose from by the layer's input `task`, int32 [T]; 1 where there is no such input
    """

    score: Score
    over: str
    bias: bool
    selection: bool
    slots: int
    renorm: bool
    scale: float
    tasks: int


@dataclass(frozen=True)
class Expert:
    """`down(act(up x))`, or `down(act(gate x) * up x)` where it is gated; `hidden` is the width between."""

    hidden: int
    activation: Activation
    gated: bool
    bias: bool


@dataclass(frozen=True)
class Layer:
    """A layer as hardware computes it.

    width    numbers of a token, d; also of its result
    experts  routed experts, E
    shared   experts that see every token, each of the shape `common`
    weights  of all experts; a router's are INT8, or FIXED16 with FIXED16 experts
    """

    name: str
    width: int
    experts: int
    router: Router
    routed: Expert
    shared: int
    common: Expert | None
    weights: Weights

    @property
    def rows(self) -> int:
        """Bits of one number of a token and of an expert's hidden layer: 8, or 16 with FIXED16 weights."""
        return 16 if self.weights is Weights.FIXED16 else 8
