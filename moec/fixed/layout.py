"""Where a layer's numbers lie in memory: beats of bits, cut over the ports (docs/fpga-arithmetic.md).

A beat is what all ports give in one cycle, `ports * port_bits` bits; port p holds bits p * port_bits and up of every
beat.  So all ports have the same number of words, and one number finds a beat in each of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from moec.fixed.design import Design
from moec.fixed.spec import Activation, Expert, Weights
from moec.fixed.tables import ENTRIES

RECORD_BITS = 64
"""Bits of the record of a channel, of a table's entry, of an expert's scalars and of a selection number."""


@dataclass(frozen=True)
class Part:
    """Beats `start` to `start + beats` of a section; what is left of the last beat is zeros."""

    start: int
    beats: int

    @property
    def end(self) -> int:
        return self.start + self.beats


@dataclass(frozen=True)
class GateSection:
    """Of one task: records of the channels, selection numbers (no beats without), tiles."""

    channels: Part
    selection: Part
    tiles: Part

    @property
    def beats(self) -> int:
        return self.tiles.end


@dataclass(frozen=True)
class ExpertSection:
    """Of one expert: one beat of scalars, then records and tiles of what leads to the hidden layer, and of `down`.

    Where the expert is gated, groups of PO channels of gate and up alternate, both in `channels` and in `tiles`.
    """

    scalars: Part
    channels: Part
    tiles: Part
    down_channels: Part
    down_tiles: Part

    @property
    def beats(self) -> int:
        return self.down_tiles.end


@dataclass(frozen=True)
class Layout:
    """Beats of everything, from the first: table, gates of all tasks, routed experts, shared experts.

    input_words, output_words  words of `port_bits` of a token's row of x (codes of `Layer.rows` bits), of y (16 bits)
    """

    beat_bits: int
    table: Part
    gates: int
    gate: GateSection
    experts: int
    expert: ExpertSection
    shared: int
    common: ExpertSection | None
    beats: int
    input_words: int
    output_words: int


def padded(size: int, multiple: int) -> int:
    """`size`, or the next multiple."""
    return ceil(size / multiple) * multiple


def _parts(beat_bits: int, bits: list[int]) -> list[Part]:
    parts, start = [], 0
    for size in bits:
        parts.append(Part(start, ceil(size / beat_bits)))
        start = parts[-1].end
    return parts


def _tile_bits(design: Design, outputs: int, inputs: int, bits: int) -> int:
    """Bits of a linear's tiles."""
    return padded(outputs, design.outputs) * padded(inputs, design.inputs) * bits


def _expert(design: Design, expert: Expert, beat_bits: int) -> ExpertSection:
    layer, first = design.layer, 2 if expert.gated else 1
    records = [padded(n, design.outputs) * RECORD_BITS for n in (expert.hidden, layer.width)]
    return ExpertSection(
        *_parts(
            beat_bits,
            [
                RECORD_BITS,
                first * records[0],
                first * _tile_bits(design, expert.hidden, layer.width, layer.weights.bits),
                records[1],
                _tile_bits(design, layer.width, expert.hidden, layer.weights.bits),
            ],
        )
    )


def layout(design: Design) -> Layout:
    """The layout of a design whose PI, PO, ports and port bits are powers of two, the last at least 64."""
    layer, beat_bits = design.layer, design.ports * design.port_bits
    gate_bits = 16 if layer.weights is Weights.FIXED16 else 8
    records = padded(layer.experts, design.outputs) * RECORD_BITS
    gate = GateSection(
        *_parts(
            beat_bits,
            [
                records,
                records if layer.router.selection else 0,
                _tile_bits(design, layer.experts, layer.width, gate_bits),
            ],
        )
    )
    expert = _expert(design, layer.routed, beat_bits)
    common = None if layer.common is None else _expert(design, layer.common, beat_bits)
    entries = 0 if layer.routed.activation is Activation.RELU else ENTRIES
    table = Part(0, ceil(entries * RECORD_BITS / beat_bits))
    gates = table.end
    experts = gates + layer.router.tasks * gate.beats
    shared = experts + layer.experts * expert.beats
    return Layout(
        beat_bits,
        table,
        gates,
        gate,
        experts,
        expert,
        shared,
        common,
        shared + (layer.shared * common.beats if common else 0),
        ceil(padded(layer.width, design.inputs) * layer.rows / design.port_bits),
        ceil(padded(layer.width, design.outputs) * 16 / design.port_bits),
    )
