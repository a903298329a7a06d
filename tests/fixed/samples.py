"""A layer, a board and a design to begin with; tests replace what they are about."""

from __future__ import annotations

from moec.fixed.design import Board, Design, Memory, Order
from moec.fixed.interface import Group, Interface, Source
from moec.fixed.spec import Activation, Expert, Layer, Router, Score, Weights

EDGE = Layer(
    name="Edge",
    width=192,
    experts=16,
    router=Router(Score.SOFTMAX, "all", False, False, 4, False, 1.0, 2),
    routed=Expert(768, Activation.GELU, False, True),
    shared=0,
    common=None,
    weights=Weights.INT8,
)

BOARD = Board("bench", "xczu9eg-ffvb1156-2-e", 2520, 912, 0, 274080, 548160, 4, 128, 17.07e9, 300e6, None, False)

DESIGN = Design(EDGE, BOARD, 16, 16, 2, 128, 256, Order.EXPERT, Memory.BRAM, Memory.BRAM, Memory.BRAM)

INTERFACE = Interface(
    task="task",
    router=Source("router.gates.weight", None, None),
    selection=None,
    routed=Group(
        16,
        None,
        Source("routed.up.weight", None, "routed.up.bias"),
        Source("routed.down.weight", None, "routed.down.bias"),
    ),
    shared=(),
)
