"""Small designs that the tile is tested on, each for what the others do not have."""

from __future__ import annotations

from moec.fixed.design import Board, Design, Memory, Order
from moec.fixed.spec import Activation, Expert, Layer, Router, Score, Weights

BOARD = Board("bench", "xczu9eg-ffvb1156-2-e", 2520, 912, 0, 274080, 548160, 4, 128, 17.07e9, 300e6, None, False)


def design(
    sizes: tuple[int, int, int],
    array: tuple[int, int],
    ports: tuple[int, int],
    weights: Weights,
    router: Router,
    expert: Expert | None = None,
    shared: tuple[int, Expert] | None = None,
    tokens: int = 8,
) -> Design:
    """Sizes are width, hidden width, experts; `array` is PI and PO; `ports` their number and their bits."""
    width, hidden, experts = sizes
    shape = expert or Expert(hidden, Activation.GELU, False, True)
    many, common = shared or (0, None)
    layer = Layer("Small", width, experts, router, shape, many, common, weights)
    return Design(layer, BOARD, *array, *ports, tokens, Order.EXPERT, Memory.LUTRAM, Memory.BRAM, Memory.BRAM)


def softmax(slots: int, over: str = "all", renorm: bool = False, scale: float = 1.0, tasks: int = 1) -> Router:
    return Router(Score.SOFTMAX, over, False, False, slots, renorm, scale, tasks)


def sigmoid(slots: int, renorm: bool = False, scale: float = 1.0, tasks: int = 1) -> Router:
    return Router(Score.SIGMOID, "all", True, False, slots, renorm, scale, tasks)


IDENTITY = Router(Score.IDENTITY, "all", False, False, 1, False, 1.0, 1)
SELECTING = Router(Score.SIGMOID, "all", False, True, 1, False, 1.0, 1)

DESIGNS = {
    # Packed products; a tile is two beats; hidden width and width are no multiples of the array; a gate for each task.
    "int8": design((20, 36, 6), (8, 4), (1, 128), Weights.INT8, softmax(2, tasks=2)),
    # Packed products of 4-bit weights, gated SiLU, a scale above 1; the router's weights are wider than the array's.
    "int4": design(
        (16, 24, 4), (4, 8), (1, 64), Weights.INT4, softmax(2, scale=2.5), Expert(24, Activation.SILU, True, True)
    ),
    # No multipliers in the array; a shared expert that is gated where the routed ones are not; several ports.
    "ternary": design(
        (24, 40, 4),
        (4, 8),
        (2, 64),
        Weights.TERNARY,
        softmax(2),
        Expert(40, Activation.RELU, False, True),
        (1, Expert(16, Activation.RELU, True, True)),
    ),
    # Long accumulators, products of 32 bits; weights that are divided by their sum.
    "fixed16": design(
        (12, 18, 5),
        (2, 2),
        (1, 64),
        Weights.FIXED16,
        sigmoid(3, renorm=True, scale=0.7),
        Expert(18, Activation.GELU, True, False),
    ),
    # Beats longer than a tile, one step a tile: as many lanes as output channels.
    "wide_port": design(
        (8, 8, 3), (8, 8), (4, 128), Weights.INT8, softmax(1, "chosen"), Expert(8, Activation.RELU, False, False)
    ),
    # More output channels than inputs, two shared experts smaller than the routed ones; a softmax of some.
    "tall": design(
        (9, 7, 3),
        (2, 16),
        (1, 256),
        Weights.INT8,
        softmax(2, renorm=True, scale=2.5, tasks=3),
        Expert(7, Activation.SILU, True, True),
        (2, Expert(5, Activation.SILU, False, True)),
    ),
    # One multiplier, and a router that the tile does not have.
    "single": design((16, 16, 2), (1, 1), (1, 64), Weights.INT8, SELECTING),
    # Everything is padding; logits as weights.
    "padded": design((3, 2, 2), (8, 8), (1, 64), Weights.INT8, IDENTITY, tokens=5),
}

FEW = ("int8", "int4", "ternary")
"""Those that are run whenever tests are, and fixed16 by its own test bench; the others are held out, and slow."""
