"""What crosses the weight ports, and the array that keeps up with it: a roofline.

The tokens of a call are taken to be spread evenly over the experts, as routers are trained to; `spread` is what chance
would do, for comparison.
"""

from __future__ import annotations

from moec.fixed.design import Design, Order
from moec.fixed.spec import Expert, Layer


def even_counts(layer: Layer, tokens: int) -> list[int]:
    """Tokens of each routed expert where a call's slots are spread as evenly as can be."""
    each, more = divmod(tokens * layer.router.slots, layer.experts)
    return [each + (number < more) for number in range(layer.experts)]


def spread(layer: Layer, tokens: int) -> float:
    """How many experts are chosen at all, on average, where every choice is equally likely."""
    return layer.experts * (1.0 - (1.0 - layer.router.slots / layer.experts) ** tokens)


def weights_of(layer: Layer, expert: Expert) -> int:
    """Weights of one expert, without multipliers and biases."""
    return layer.width * expert.hidden * (3 if expert.gated else 2)


def expert_bytes(layer: Layer) -> float:
    """Bytes of one routed expert's weights."""
    return weights_of(layer, layer.routed) * layer.weights.bits / 8


def visits(layer: Layer, tokens: int, order: Order) -> int:
    """How often the weights of a routed expert cross the ports."""
    slots = tokens * layer.router.slots
    return slots if order is Order.TOKEN else min(layer.experts, slots)


def tokens_an_expert(layer: Layer, tokens: int, order: Order) -> float:
    """Rows that are multiplied with an expert's weights each time that they come in."""
    return tokens * layer.router.slots / max(1, visits(layer, tokens, order))


def port_bytes(design: Design) -> float:
    """Bytes a cycle that come in: what the ports could take, or what the memory behind them gives if that is less."""
    return min(design.ports * design.port_bits / 8, design.board.bandwidth / design.board.clock)


def balance(design: Design) -> float:
    """PE*: multipliers for which computing and reading an expert take equally long.

    Tokens an expert x bytes a cycle / bytes a weight: with more the array waits for weights, with fewer the ports wait.
    """
    layer = design.layer
    rows = tokens_an_expert(layer, design.tokens, design.order)
    return rows * port_bytes(design) / (layer.weights.bits / 8)


def stretch(design: Design) -> float:
    """Cycles of a beat: more than 1 where the memory gives less than the ports could take."""
    return design.ports * design.port_bits / 8 / port_bytes(design)
