"""Parameters and rows as words of memory, in the layout of `moec.fixed.layout`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moec.fixed.design import Design
from moec.fixed.layout import ExpertSection, Layout, Part, layout, padded
from moec.fixed.parameters import Expert, Gate, Linear, Parameters
from moec.fixed.spec import Weights

Bytes = NDArray[np.uint8]
Integers = NDArray[np.int64]


def codes_to_bytes(codes: Integers, bits: int) -> Bytes:
    """Numbers of 2, 4, 8 or 16 bits, two's complement, one behind another from bit 0 on, [...] to [bytes]."""
    flat = codes.reshape(-1)
    if bits >= 8:
        data: bytes = flat.astype(f"<i{bits // 8}").tobytes()
        return np.frombuffer(data, np.uint8)
    many = 8 // bits
    full = np.pad(flat, (0, -len(flat) % many))
    fields: Integers = (full & ((1 << bits) - 1)).reshape(-1, many) << (bits * np.arange(many))
    words: Bytes = fields.sum(axis=1).astype(np.uint8)
    return words


def records(linear: Linear, outputs: int) -> NDArray[np.uint64]:
    """A record for each channel: multiplier in bits 0-16, shift in 17-22, bias in 23-63.

    There are N, and up to a multiple of `outputs` such with multiplier 0, shift 1 and bias 0.
    """
    record = linear.multiplier | (linear.shift << 17) | (linear.bias << 23)
    more = padded(len(record), outputs) - len(record)
    return np.pad(record, (0, more), constant_values=1 << 17).view(np.uint64)


def tiles(linear: Linear, outputs: int, inputs: int) -> Integers:
    """Codes in the array's order, [N / PO, K / PI, PO, PI], with zeros where N or K are no multiples."""
    n, k = linear.codes.shape
    rows, columns = padded(n, outputs), padded(k, inputs)
    full = np.pad(linear.codes, ((0, rows - n), (0, columns - k)))
    return full.reshape(rows // outputs, outputs, columns // inputs, inputs).transpose(0, 2, 1, 3)


def pack(design: Design, parameters: Parameters) -> Bytes:
    """All of a layer's memory, [ports, words, port_bits / 8]."""
    where = layout(design)
    memory = np.zeros((where.beats, where.beat_bits // 8), np.uint8)
    if parameters.activation is not None:
        _put(memory, 0, where.table, parameters.activation.words().view(np.uint8))
    for number, gate in enumerate(parameters.gates):
        _put_gate(design, memory, where, number, gate)
    for number, expert in enumerate(parameters.experts):
        _put_expert(design, memory, where.experts + number * where.expert.beats, where.expert, expert)
    if where.common is not None:
        for number, expert in enumerate(parameters.shared):
            _put_expert(design, memory, where.shared + number * where.common.beats, where.common, expert)
    ports = memory.reshape(where.beats, design.ports, design.port_bits // 8)
    return np.ascontiguousarray(ports.transpose(1, 0, 2))


def pack_rows(design: Design, codes: Integers) -> Bytes:
    """The input's rows [T, d] as words, [T, input words, port_bits / 8]."""
    bits = design.layer.rows
    words = layout(design).input_words
    full = np.pad(codes, ((0, 0), (0, words * design.port_bits // bits - codes.shape[1])))
    return codes_to_bytes(full, bits).reshape(len(codes), words, design.port_bits // 8)


def unpack_rows(design: Design, words: Bytes) -> Integers:
    """Codes of the result [T, d], of rows of words as `pack_rows` gives them, of 16-bit codes."""
    codes = np.ascontiguousarray(words).view("<i2").reshape(len(words), words.shape[1] * words.shape[2] // 2)
    return codes[:, : design.layer.width].astype(np.int64)


def _put(memory: Bytes, section: int, part: Part, data: Bytes) -> None:
    memory[section + part.start : section + part.end].reshape(-1)[: data.size] = data.reshape(-1)


def _put_gate(design: Design, memory: Bytes, where: Layout, number: int, gate: Gate) -> None:
    section = where.gates + number * where.gate.beats
    bits = 16 if design.layer.weights is Weights.FIXED16 else 8
    _put(memory, section, where.gate.channels, records(gate.linear, design.outputs).view(np.uint8))
    if gate.selection is not None:
        _put(memory, section, where.gate.selection, gate.selection.astype("<i8").view(np.uint8))
    _put(memory, section, where.gate.tiles, codes_to_bytes(tiles(gate.linear, design.outputs, design.inputs), bits))


def _put_expert(design: Design, memory: Bytes, start: int, section: ExpertSection, expert: Expert) -> None:
    bits = design.layer.weights.bits
    scalars = np.array([expert.multiplier | (expert.shift << 17)], np.int64)
    _put(memory, start, section.scalars, scalars.view(np.uint8))
    firsts = [expert.up] if expert.gate is None else [expert.gate, expert.up]
    grouped = [records(linear, design.outputs).reshape(-1, design.outputs) for linear in firsts]
    _put(memory, start, section.channels, np.stack(grouped, axis=1).view(np.uint8))
    grouped_tiles = [tiles(linear, design.outputs, design.inputs) for linear in firsts]
    _put(memory, start, section.tiles, codes_to_bytes(np.stack(grouped_tiles, axis=1), bits))
    _put(memory, start, section.down_channels, records(expert.down, design.outputs).view(np.uint8))
    _put(memory, start, section.down_tiles, codes_to_bytes(tiles(expert.down, design.outputs, design.inputs), bits))
