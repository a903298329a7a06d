"""Words of memory against the description in docs/fpga-arithmetic.md, read bit by bit."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from moec.fixed.design import Board, Design, Memory, Order
from moec.fixed.layout import Layout, layout
from moec.fixed.packing import pack, pack_rows, unpack_rows
from moec.fixed.parameters import Expert, Linear, Parameters
from moec.fixed.spec import Layer, Weights
from moec.fixed.vectors import cases
from tests.fixed.layers import layers

board = Board("B", "part", 100, 100, 0, 1000, 1000, 4, 128, 1e9, 3e8, None, False)


@st.composite
def designs(draw: st.DrawFn, layer: Layer) -> Design:
    power = st.sampled_from([1, 2, 4, 8])
    bits = draw(st.sampled_from([64, 128, 256]))
    kinds = (Memory.BRAM, Memory.BRAM, Memory.BRAM)
    return Design(
        layer, board, draw(power), draw(power), draw(st.sampled_from([1, 2, 4])), bits, 64, Order.EXPERT, *kinds
    )


class Reader:
    """The beats of all ports as one long number, read from a bit on."""

    def __init__(self, design: Design, memory: np.ndarray) -> None:
        ports, words, size = memory.shape
        assert (ports, size * 8) == (design.ports, design.port_bits)
        beats = [b"".join(memory[p, w].tobytes() for p in range(ports)) for w in range(words)]
        self.bits = int.from_bytes(b"".join(beats), "little")
        self.beat = ports * size * 8
        self.at = 0

    def seek(self, beat: int) -> None:
        """To where the next part begins; everything between is zeros."""
        assert self.at <= beat * self.beat
        while self.at < beat * self.beat:
            assert self.take(1) == 0
        assert self.at == beat * self.beat

    def align(self) -> int:
        return -(-self.at // self.beat)

    def take(self, bits: int, signed: bool = False) -> int:
        value = (self.bits >> self.at) & ((1 << bits) - 1)
        self.at += bits
        return value - (1 << bits) if signed and value >> (bits - 1) else value


def read_channels(reader: Reader, groups: int, linears: list[Linear], size: int) -> None:
    for group in range(groups):
        for it in linears:
            for o in range(group * size, (group + 1) * size):
                got = reader.take(17), reader.take(6), reader.take(41, signed=True)
                inside = o < len(it.codes)
                want = (int(it.multiplier[o]), int(it.shift[o]), int(it.bias[o])) if inside else (0, 1, 0)
                assert got == want


def read_tiles(reader: Reader, design: Design, groups: int, linears: list[Linear], bits: int) -> None:
    po, pi = design.outputs, design.inputs
    for group in range(groups):
        for it in linears:
            n, k = it.codes.shape
            for first in range(0, k, pi):
                for o in range(group * po, (group + 1) * po):
                    for i in range(first, first + pi):
                        code = int(it.codes[o, i]) if o < n and i < k else 0
                        assert reader.take(bits, signed=True) == code


def read_expert(reader: Reader, design: Design, it: Expert) -> None:
    bits, po = design.layer.weights.bits, design.outputs
    firsts = [it.up] if it.gate is None else [it.gate, it.up]
    groups = -(-len(it.up.codes) // po)
    assert (reader.take(17), reader.take(6)) == (it.multiplier, it.shift)
    reader.seek(reader.align())
    read_channels(reader, groups, firsts, po)
    reader.seek(reader.align())
    read_tiles(reader, design, groups, firsts, bits)
    reader.seek(reader.align())
    read_channels(reader, -(-len(it.down.codes) // po), [it.down], po)
    reader.seek(reader.align())
    read_tiles(reader, design, -(-len(it.down.codes) // po), [it.down], bits)
    reader.seek(reader.align())


def read_all(reader: Reader, design: Design, where: Layout, parameters: Parameters) -> None:
    if parameters.activation is not None:
        for base, step in zip(parameters.activation.base, parameters.activation.step, strict=True):
            assert (reader.take(18), reader.take(18, signed=True), reader.take(28)) == (base, step, 0)
    reader.seek(where.gates)
    groups = -(-design.layer.experts // design.outputs)
    for gate in parameters.gates:
        start = reader.align()
        read_channels(reader, groups, [gate.linear], design.outputs)
        reader.seek(reader.align())
        for number in [] if gate.selection is None else gate.selection.tolist():
            assert reader.take(64, signed=True) == number
        reader.seek(start + where.gate.tiles.start)
        read_tiles(reader, design, groups, [gate.linear], 16 if design.layer.weights is Weights.FIXED16 else 8)
        reader.seek(reader.align())
    for number, expert in enumerate(parameters.experts):
        reader.seek(where.experts + number * where.expert.beats)
        read_expert(reader, design, expert)
    for number, expert in enumerate(parameters.shared):
        assert where.common is not None
        reader.seek(where.shared + number * where.common.beats)
        read_expert(reader, design, expert)
    assert reader.at == where.beats * where.beat_bits


@settings(max_examples=40)
@given(st.data(), layers(), st.integers(0, 100))
def test_memory_holds_every_number_where_the_page_says(data: st.DataObject, layer: Layer, seed: int) -> None:
    design = data.draw(designs(layer))
    for case in cases(layer, 0, seed):
        reader = Reader(design, pack(design, case.parameters))
        read_all(reader, design, layout(design), case.parameters)


@settings(max_examples=40)
@given(st.data(), layers(), st.integers(0, 3))
def test_rows_are_codes_one_behind_another_in_whole_words(data: st.DataObject, layer: Layer, tokens: int) -> None:
    design = data.draw(designs(layer))
    rows = cases(layer, tokens)[0].rows
    words = pack_rows(design, rows)
    where = layout(design)
    assert words.shape == (tokens, where.input_words, design.port_bits // 8)
    for row, word in zip(rows.tolist(), words, strict=True):
        number = int.from_bytes(word.tobytes(), "little")
        fields = [(number >> (i * layer.rows)) & ((1 << layer.rows) - 1) for i in range(len(row))]
        assert fields == [code % (1 << layer.rows) for code in row]
        assert number >> (len(row) * layer.rows) == 0


@given(st.data(), layers())
def test_results_are_read_from_words_of_16_bit_codes(data: st.DataObject, layer: Layer) -> None:
    design = data.draw(designs(layer))
    words = np.zeros((2, layout(design).output_words * design.port_bits // 16), "<i2")
    words[:, : layer.width] = np.arange(2 * layer.width).reshape(2, -1) - layer.width
    got = unpack_rows(design, words.view(np.uint8).reshape(2, layout(design).output_words, -1))
    assert got.tolist() == words[:, : layer.width].tolist()
