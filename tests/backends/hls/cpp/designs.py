"""Designs that the tests of generated C++ share: together they have every kind of router, expert, weight and port."""

from __future__ import annotations

from moec.fixed.design import Board, Design, Memory, Order
from moec.fixed.spec import Activation, Expert, Layer, Router, Score, Weights

BOARD = Board("zcu102", "xczu9eg-ffvb1156-2-e", 2520, 912, 0, 274080, 548160, 4, 128, 17.07e9, 300e6, "base", False)
CARD = Board("u280", "xcu280-fsvh2892-2L-e", 9024, 2016, 960, 1303680, 2607360, 31, 256, 460e9, 300e6, "xdma", True)


def design(
    layer: Layer,
    inputs: int,
    outputs: int,
    ports: int,
    port_bits: int,
    tokens: int,
    order: Order = Order.EXPERT,
    board: Board = BOARD,
) -> Design:
    memory = Memory.URAM if board.uram else Memory.BRAM
    return Design(layer, board, inputs, outputs, ports, port_bits, tokens, order, Memory.BRAM, memory, memory)


def router(
    score: Score = Score.SOFTMAX,
    slots: int = 2,
    over: str = "all",
    renorm: bool = False,
    bias: bool = False,
    selection: bool = False,
    scale: float = 1.0,
    tasks: int = 1,
) -> Router:
    return Router(score, over, bias, selection, slots, renorm, scale, tasks)


TASKS = design(
    Layer("Edge", 24, 6, router(tasks=2), Expert(36, Activation.GELU, False, True), 0, None, Weights.INT8),
    inputs=8,
    outputs=4,
    ports=1,
    port_bits=128,
    tokens=32,
)
"""Two tasks, softmax over all experts, GELU, one port."""

SHARED = design(
    Layer(
        "Shared",
        20,
        6,
        router(Score.SIGMOID, 3, renorm=True, bias=True, selection=True, scale=2.5),
        Expert(36, Activation.SILU, True, False),
        2,
        Expert(12, Activation.SILU, False, True),
        Weights.INT4,
    ),
    inputs=4,
    outputs=8,
    ports=2,
    port_bits=256,
    tokens=27,
    board=CARD,
)
"""Shared experts of another shape, gated ones, numbers that are added for the choice, 4 bits, two ports."""

TOKENS_FIRST = design(
    Layer("Few", 33, 9, router(Score.SIGMOID), Expert(17, Activation.RELU, False, False), 0, None, Weights.TERNARY),
    inputs=16,
    outputs=4,
    ports=1,
    port_bits=64,
    tokens=5,
    order=Order.TOKEN,
)
"""Token by token, ternary weights, scores that saturate, sizes that fill no tile."""

WIDE = design(
    Layer(
        "Wide",
        24,
        5,
        router(Score.IDENTITY, 1, scale=0.5),
        Expert(40, Activation.GELU, True, True),
        1,
        Expert(40, Activation.GELU, True, True),
        Weights.FIXED16,
    ),
    inputs=4,
    outputs=4,
    ports=4,
    port_bits=64,
    tokens=19,
)
"""16 bits, weights of experts that are logits, four narrow ports."""

ONE = design(
    Layer("One", 1, 1, router(slots=1), Expert(1, Activation.RELU, False, False), 0, None, Weights.INT8),
    inputs=1,
    outputs=16,
    ports=1,
    port_bits=512,
    tokens=1,
)
"""One of everything, and an array that is wider than all of it."""

FEW = design(
    Layer(
        "Renormed",
        40,
        12,
        router(slots=12, renorm=True),
        Expert(30, Activation.SILU, True, True),
        0,
        None,
        Weights.INT8,
    ),
    inputs=2,
    outputs=16,
    ports=2,
    port_bits=64,
    tokens=64,
    order=Order.TOKEN,
)
"""Every expert is chosen; an array that needs many lanes."""

DESIGNS = {"edge": TASKS, "shared": SHARED, "tokens": TOKENS_FIRST, "wide": WIDE, "one": ONE, "few": FEW}
