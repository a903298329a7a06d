"""What a design takes of a board: counts that the generated RTL, synthesised by Yosys, is compared with."""

from __future__ import annotations

from dataclasses import dataclass

from moec.fixed.design import Design
from moec.fixed.model.geometry import gated
from moec.fixed.spec import Activation, Weights


@dataclass(frozen=True)
class Resources:
    """Of a part of a design, or of all of it.  `bram` is in blocks of 36 Kbit: half a block is one of 18 Kbit."""

    dsp: int
    bram: float
    uram: int
    lut: int
    ff: int

    def __add__(self, other: Resources) -> Resources:
        return Resources(
            self.dsp + other.dsp,
            self.bram + other.bram,
            self.uram + other.uram,
            self.lut + other.lut,
            self.ff + other.ff,
        )


def multipliers(design: Design) -> int:
    """DSP blocks of the array: two products of 8 or 4 bits share one, ternary products take none."""
    products = design.inputs * design.outputs
    match design.layer.weights:
        case Weights.FIXED16:
            return products
        case Weights.INT8 | Weights.INT4:
            return -(-design.outputs // 2) * design.inputs
        case Weights.TERNARY:
            return 0


def lane_multipliers(design: Design) -> int:
    """DSP blocks of a lane: requantising, table, product with the gate, the hidden layer's codes, the weight."""
    table = 0 if design.layer.routed.activation is Activation.RELU else 1
    return 2 + table + (1 + 2 if gated(design) else 1) + 1
