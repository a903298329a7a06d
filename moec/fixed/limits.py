"""What the arithmetic of fixed-point layers can hold; everything else is refused before any code is made."""

from __future__ import annotations

from moec.fixed.arithmetic import gate_fraction
from moec.fixed.spec import Expert, Layer, Score, Weights

ACCUMULATOR_BITS = {Weights.INT8: 32, Weights.INT4: 32, Weights.TERNARY: 32, Weights.FIXED16: 46}
BIAS_BITS = {Weights.INT8: 31, Weights.INT4: 31, Weights.TERNARY: 31, Weights.FIXED16: 41}
MOST_EXPERTS = 1024
MOST_SLOTS = 64


def longest(weights: Weights) -> int:
    """How many products an accumulator holds beside the bias, whatever the codes are; a router's weights among them."""
    room = (1 << (ACCUMULATOR_BITS[weights] - 1)) - (1 << (BIAS_BITS[weights] - 1))
    rows, codes = (16, 16) if weights is Weights.FIXED16 else (8, 8)
    return room // (((1 << (rows - 1)) - 1) << (codes - 1))


def reasons(layer: Layer) -> list[str]:
    """Why the arithmetic cannot hold this layer; nothing where it can."""
    found = []
    most = longest(layer.weights)
    for name, size in _widths(layer):
        if size > most:
            found.append(f"{name} is {size}, and an accumulator holds {most} products of {layer.weights.value} weights")
    router = layer.router
    if layer.experts > MOST_EXPERTS:
        found.append(f"there are {layer.experts} experts; at most {MOST_EXPERTS} can be chosen from")
    if not 1 <= router.slots <= min(layer.experts, MOST_SLOTS):
        found.append(f"a token has {router.slots} experts of {layer.experts}; it may have 1 to {MOST_SLOTS}")
    if router.scale <= 0.0 or gate_fraction(router) < 1:
        found.append(f"weights are scaled by {router.scale:g}; the factor must be above 0 and at most 4096")
    if router.score is Score.IDENTITY and router.renorm:
        found.append("weights that are the logits themselves, which may be negative, are divided by their sum")
    if router.score is Score.SOFTMAX and router.selection:
        found.append("numbers for the choice are added to a softmax, whose sum is known only behind the choice")
    if layer.common is not None and layer.common.activation is not layer.routed.activation:
        found.append("shared and routed experts have different activations, and there is one table for all")
    return found


def _widths(layer: Layer) -> list[tuple[str, int]]:
    experts: list[tuple[str, Expert]] = [("the experts'", layer.routed)]
    if layer.common is not None:
        experts.append(("the shared experts'", layer.common))
    return [("the width of a token", layer.width), *((f"{who} hidden width", e.hidden) for who, e in experts)]
