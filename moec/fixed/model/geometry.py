"""How often the array steps for each linear, and how deep the pipeline behind it is: what RTL and models share."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from moec.fixed.arithmetic import GATE_BITS, WIDE
from moec.fixed.design import Design
from moec.fixed.spec import Activation, Expert, Weights

READ = 2
"""Cycles from a step's addresses to its operands: a memory's output, and the registers before the multipliers."""
MULTIPLY = 1
REQUANTISE = 6
"""Cycles of a requantisation: bias, two products, their sum, two steps of shifting, rounding and limiting."""
TABLE = 4
"""Cycles of an activation by table: memory, operands, product, difference."""
GATE_PRODUCT = 2
"""Cycles of a product with the gate's value: operands, product."""
WEIGH = 3
"""Cycles of a weighted sum: operands, product, sum."""


@dataclass(frozen=True)
class Linear:
    """A linear on the array: `tiles` groups of PO outputs, each after `steps` steps of PI inputs."""

    steps: int
    tiles: int

    @property
    def cycles(self) -> int:
        return self.steps * self.tiles


@dataclass(frozen=True)
class Passes:
    """One row through an expert: `first` (gate and up alternating, where it is gated), a wait of `gap`, `down`."""

    first: Linear
    gap: int
    down: Linear

    @property
    def cycles(self) -> int:
        return self.first.cycles + self.gap + self.down.cycles


def linear(design: Design, inputs: int, outputs: int) -> Linear:
    return Linear(ceil(inputs / design.inputs), ceil(outputs / design.outputs))


def router(design: Design) -> Linear:
    return linear(design, design.layer.width, design.layer.experts)


def experts(design: Design) -> tuple[Expert, ...]:
    """The shapes of experts that the tile knows: routed, and shared where there are any."""
    layer = design.layer
    return (layer.routed,) if layer.common is None else (layer.routed, layer.common)


def lanes(design: Design) -> int:
    """Sums that are requantised side by side: as few as keep up with the array, a power of two."""
    fewest = min(ceil(n / design.inputs) for n in (design.layer.width, *(e.hidden for e in experts(design))))
    count = 1
    while design.outputs > count * fewest:
        count *= 2
    return count


def groups(design: Design) -> int:
    """Cycles in which the sums of a tile leave for requantisation."""
    return design.outputs // lanes(design)


def paired(design: Design) -> bool:
    """Whether two products share a multiplier: those of two output channels, of 8 or 4-bit weights."""
    return design.layer.weights in (Weights.INT8, Weights.INT4) and design.outputs > 1


def tree(design: Design) -> int:
    """Cycles of the adders that sum up PI products, and of taking pairs apart."""
    return (design.inputs - 1).bit_length() + (1 if paired(design) else 0)


def accumulated(design: Design) -> int:
    """Cycles from a tile's last step until its first sums are at the lanes: operands, products, adders, sum, hold."""
    return READ + MULTIPLY + tree(design) + 3


def activated(design: Design) -> int:
    """Cycles of the activation."""
    return 1 if design.layer.routed.activation is Activation.RELU else TABLE


def gated(design: Design) -> bool:
    return any(expert.gated for expert in experts(design))


def hidden(design: Design) -> int:
    """Cycles from a tile's last step until its first codes can be read from the hidden layer's memory."""
    product = GATE_PRODUCT if gated(design) else 0
    return accumulated(design) + REQUANTISE + activated(design) + product + REQUANTISE + 1


def retired(design: Design) -> int:
    """Cycles from the end of an expert's last row until the records of its channels are no longer read."""
    return accumulated(design) + groups(design)


def passes(design: Design, expert: Expert) -> Passes:
    """The steps of a row; `down` begins as soon as each of its operands is there when it is read."""
    up = linear(design, design.layer.width, expert.hidden)
    down = linear(design, expert.hidden, design.layer.width)
    first = Linear(up.steps, up.tiles * (2 if expert.gated else 1))
    period = first.cycles // up.tiles
    gap, behind, side = 0, hidden(design), lanes(design)
    for step in range(down.steps):
        channel = min((step + 1) * design.inputs, up.tiles * design.outputs) - 1
        tile, place = divmod(channel, design.outputs)
        ready = (tile + 1) * period - 1 + behind + place // side
        gap = max(gap, ready - first.cycles - step)
    return Passes(first, gap, down)


def routes(design: Design) -> bool:
    """Whether the array multiplies a router's weights too: those of 4 bits and less are wider than its multipliers."""
    return design.layer.weights in (Weights.INT8, Weights.FIXED16)


def sum_bits(design: Design) -> int:
    """Bits of a weighted sum: as many products of 16 and 18 bits as a token has experts."""
    return WIDE + GATE_BITS - 1 + (design.layer.router.slots + design.layer.shared - 1).bit_length()


def settled(design: Design) -> int:
    """Cycles from the end of the last row until its sums are in memory."""
    return accumulated(design) + groups(design) + REQUANTISE + WEIGH
