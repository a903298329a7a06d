"""What the kernel in HLS C++ takes of a board: its buffers, and multipliers as a tool makes them that packs nothing.

Estimates: they say whether a design fits, and were not compared with what a vendor's tool makes of the sources.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from moec.fixed.arithmetic import WIDE
from moec.fixed.design import Board, Design, Memory, Order
from moec.fixed.layout import RECORD_BITS, padded
from moec.fixed.model.blocks import blocks
from moec.fixed.model.geometry import experts, gated, lanes
from moec.fixed.model.resources import Resources, lane_multipliers
from moec.fixed.spec import Activation, Weights
from moec.fixed.tables import ENTRIES

SHARE = {"dsp": 0.8, "bram": 0.8, "uram": 0.8, "lut": 0.7}
"""How much of a board a design may take; what is filled further is hard to route at the clock that is asked for."""

TOTAL_BITS = 48
LOGIT_BITS = 24
FACTOR_BITS = 18
LUTS_A_PRODUCT = {Weights.INT8: 0, Weights.INT4: 0, Weights.FIXED16: 0, Weights.TERNARY: 16}
LUTS_A_LANE = 900
LUTS_OF_CONTROL = 12000
"""State machines, streams, and an AXI master for each bundle."""


SHALLOW = 64
"""A bank of at most so many words is of look-up tables, whatever the others of its kind are made of."""

NARROW = 32
"""A bank of fewer bits stays in block RAM: an UltraRAM, 72 bits wide, would be wasted on it."""


@dataclass(frozen=True)
class Buffer:
    """A memory on the chip: `banks` of `depth` words of `width` bits each, all of which are read at once.

    kind  which of the design's choices says what it is made of: "queues", "weights_in" or "rows_in"
    """

    name: str
    kind: str
    width: int
    depth: int
    banks: int = 1

    @property
    def bits(self) -> int:
        return self.width * self.depth * self.banks


def row_banks(design: Design) -> int:
    """Numbers of a token's row that are read, or come in, in one cycle."""
    return max(design.inputs, design.port_bits // design.layer.rows)


def hidden_banks(design: Design) -> int:
    return max(design.inputs, lanes(design))


def records(design: Design) -> int:
    """Groups of PO records of an expert, all of which may come in before its first tile is used."""
    most = max((2 if expert.gated else 1) * ceil(expert.hidden / design.outputs) for expert in experts(design))
    return max(most + ceil(design.layer.width / design.outputs), ceil(design.layer.experts / design.outputs))


def buffers(design: Design) -> tuple[Buffer, ...]:
    """Every buffer of the kernel that has more than a few words."""
    layer, side, tokens = design.layer, lanes(design), design.tokens
    widest = max(expert.hidden for expert in experts(design))
    row = padded(layer.width, row_banks(design))
    hidden = padded(widest, max(design.inputs, design.outputs))
    per_token = design.order is Order.TOKEN
    at_once = 1 if per_token else tokens
    slots = layer.router.slots
    expert_bits = max(1, (layer.experts - 1).bit_length())
    token_bits = max(1, (tokens - 1).bit_length())
    tiles = ceil(max(layer.width, widest) / design.inputs)

    def banked(name: str, kind: str, width: int, words: int, banks: int) -> Buffer:
        return Buffer(name, kind, width, ceil(words / banks), banks)

    found = [
        banked("rows", "rows_in", layer.rows, tokens * row, row_banks(design)),
        banked("hidden", "rows_in", layer.rows, at_once * hidden, hidden_banks(design)),
        banked("totals", "rows_in", TOTAL_BITS, tokens * padded(layer.width, design.outputs), side),
        banked("logits", "queues", LOGIT_BITS, tokens * padded(layer.experts, design.outputs), side),
        Buffer("queue", "queues", token_bits + FACTOR_BITS, (slots + 1) * tokens),
        Buffer("picks", "queues", 1 + expert_bits + FACTOR_BITS, slots * tokens),
        Buffer("panel", "weights_in", design.inputs * design.outputs * layer.weights.bits, tiles, 2),
        Buffer("records", "weights_in", design.outputs * RECORD_BITS, records(design)),
    ]
    if gated(design):
        found.append(banked("held", "rows_in", WIDE, at_once * design.outputs, side))
    if layer.routed.activation is not Activation.RELU:
        found.append(Buffer("table", "queues", RECORD_BITS, ENTRIES, side))
    return tuple(found)


def memory(design: Design, buffer: Buffer) -> Memory:
    """What a buffer is made of: what its kind is, but for shallow banks and for narrow ones."""
    chosen: Memory = getattr(design, buffer.kind)
    if buffer.depth <= SHALLOW:
        return Memory.LUTRAM
    if chosen is Memory.URAM and (buffer.width < NARROW or buffer.name == "table"):
        return Memory.BRAM
    return chosen


def memories(design: Design) -> dict[str, Memory]:
    """What each buffer is made of, by name."""
    return {buffer.name: memory(design, buffer) for buffer in buffers(design)}


def buffer_parts(design: Design) -> dict[str, Resources]:
    """What each buffer takes."""
    made = {}
    for buffer in buffers(design):
        one = blocks(memory(design, buffer), buffer.width, buffer.depth)
        total = Resources(0, 0, 0, 0, 0)
        for _ in range(buffer.banks):
            total += one
        made[buffer.name] = total
    return made


def multipliers(design: Design) -> int:
    """DSP blocks: one a product (none for ternary weights), and those of the lanes."""
    products = 0 if design.layer.weights is Weights.TERNARY else design.inputs * design.outputs
    return products + lanes(design) * lane_multipliers(design)


def resources(design: Design) -> Resources:
    """What the kernel takes in all."""
    logic = design.inputs * design.outputs * LUTS_A_PRODUCT[design.layer.weights] + lanes(design) * LUTS_A_LANE
    accumulators = design.outputs * 64
    lut = logic + accumulators + LUTS_OF_CONTROL + design.ports * 1500
    total = Resources(multipliers(design), 0, 0, lut, ceil(1.5 * lut))
    for part in buffer_parts(design).values():
        total += part
    return total


def room(board: Board) -> Resources:
    """What a design may take of a board."""
    return Resources(
        int(board.dsp * SHARE["dsp"]),
        int(board.bram * SHARE["bram"]),
        int(board.uram * SHARE["uram"]),
        int(board.lut * SHARE["lut"]),
        board.ff,
    )


def excess(design: Design) -> list[str]:
    """What the kernel would take more of than it may; nothing where it fits."""
    return over(resources(design), design.board)


def over(taken: Resources, board: Board) -> list[str]:
    """What of this a design may not take of a board."""
    most = room(board)
    return [
        f"{getattr(taken, name):,g} {what} of {getattr(most, name):,g}"
        for name, what in (("dsp", "DSP blocks"), ("bram", "block RAMs"), ("uram", "UltraRAMs"), ("lut", "LUTs"))
        if getattr(taken, name) > getattr(most, name)
    ]
