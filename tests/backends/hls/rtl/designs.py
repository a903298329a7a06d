"""Small designs that the tile is tested on, each for what the others do not have."""

from __future__ import annotations

from moec.fixed.design import Board, Design, Memory, Order
from moec.fixed.spec import Activation, Expert, Layer, Router, Score, Weights

BOARD = Board("bench", "xczu9eg-ffvb1156-2-e", 2520, 912, 0, 274080, 548160, 4, 128, 17.07e9, 300e6, None, False)


def design(
    sizes: tuple[int, int, int, int],
    array: tuple[int, int],
    ports: tuple[int, int],
    weights: Weights,
    expert: Expert | None = None,
    shared: tuple[int, Expert] | None = None,
    scale: float = 1.0,
    tokens: int = 8,
) -> Design:
    """Sizes are width, hidden width, experts, slots; `array` is PI and PO; `ports` their number and their bits."""
    width, hidden, experts, slots = sizes
    router = Router(Score.SOFTMAX, "all", False, False, slots, False, scale, 1)
    shape = expert or Expert(hidden, Activation.GELU, False, True)
    many, common = shared or (0, None)
    layer = Layer("Small", width, experts, router, shape, many, common, weights)
    return Design(layer, BOARD, *array, *ports, tokens, Order.EXPERT, Memory.LUTRAM, Memory.BRAM, Memory.BRAM)


DESIGNS = {
    # Packed products; a tile is two beats; hidden width and width are no multiples of the array.
    "int8": design((20, 36, 4, 2), (8, 4), (1, 128), Weights.INT8),
    # Two products of three bits a multiplier, gated SiLU, and a scale above 1.
    "int4": design((16, 24, 4, 2), (4, 8), (1, 64), Weights.INT4, Expert(24, Activation.SILU, True, True), scale=2.5),
    # No multipliers in the array; a shared expert that is gated where the routed ones are not; several ports.
    "ternary": design(
        (24, 40, 4, 2),
        (4, 8),
        (2, 64),
        Weights.TERNARY,
        Expert(40, Activation.RELU, False, True),
        (1, Expert(16, Activation.RELU, True, True)),
    ),
    # Long accumulators, products of 32 bits.
    "fixed16": design((12, 18, 5, 3), (2, 2), (1, 64), Weights.FIXED16, Expert(18, Activation.GELU, True, False)),
    # Beats longer than a tile, one step a tile: as many lanes as output channels.
    "wide_port": design((8, 8, 3, 1), (8, 8), (4, 128), Weights.INT8, Expert(8, Activation.RELU, False, False)),
    # More output channels than inputs, two shared experts smaller than the routed ones.
    "tall": design(
        (9, 7, 3, 1),
        (2, 16),
        (1, 256),
        Weights.INT8,
        Expert(7, Activation.SILU, True, True),
        (2, Expert(5, Activation.SILU, False, True)),
    ),
    # One multiplier.
    "single": design((16, 16, 2, 1), (1, 1), (1, 64), Weights.INT4),
    # Everything is padding.
    "padded": design((3, 2, 2, 1), (8, 8), (1, 64), Weights.INT8, tokens=5),
}

FEW = ("int8", "int4", "ternary", "fixed16")
"""Those that are run whenever tests are; the others are held out, and slow."""
