"""How a layer is built in hardware: the size of the array, the ports, the buffers, and the board they fit."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from moec.fixed.spec import Layer


class Memory(StrEnum):
    """What a buffer on the chip is made of."""

    BRAM = "bram"
    URAM = "uram"
    LUTRAM = "lutram"


class Order(StrEnum):
    """Which loop is outside: over experts (weights cross the bus once) or over tokens."""

    EXPERT = "expert"
    TOKEN = "token"


@dataclass(frozen=True)
class Board:
    """What a board has.

    part         the vendor's name of the device
    dsp, bram, uram, lut, ff   how many it has; `bram` in blocks of 36 Kbit, `uram` of 288 Kbit
    ports        memory ports or HBM banks that a kernel can read weights from at once
    port_bits    width of each
    bandwidth    bytes a second that all of them give together
    clock        Hz that designs of this kind reach; a target for the tools, not a measurement
    platform     Vitis platform to link with; None for a bare part
    hbm          whether its memory is HBM
    """

    name: str
    part: str
    dsp: int
    bram: int
    uram: int
    lut: int
    ff: int
    ports: int
    port_bits: int
    bandwidth: float
    clock: float
    platform: str | None
    hbm: bool


@dataclass(frozen=True)
class Design:
    """A layer on a board; everything that generated code depends on.

    inputs, outputs  the array: PI numbers of a row times PO output channels are multiplied each cycle
    ports            memory ports that weights are read through, each `port_bits` wide
    tokens           largest number of tokens of one call; more are processed in several calls by the host
    order            which loop is outside
    queues, weights_in, rows_in   what the experts' queues, the two weight buffers, and the tokens' rows are made of
    """

    layer: Layer
    board: Board
    inputs: int
    outputs: int
    ports: int
    port_bits: int
    tokens: int
    order: Order
    queues: Memory
    weights_in: Memory
    rows_in: Memory
