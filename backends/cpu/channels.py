"""The channels (output columns) of quantised weights, one after the other, between a tensor and the panels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch_mlir import ir

from moec.backends.cpu import decode, e4m3
from moec.backends.cpu.builder import Builder
from moec.backends.cpu.codes import CodePanels
from moec.backends.cpu.frame import align_up
from moec.backends.cpu.values import Pointer, Value, byte_width


@dataclass(frozen=True)
class Channel:
    """One lane of one vector of a panel, as code that runs for each of them."""

    b: Builder
    layout: CodePanels
    panel: Pointer
    vector: int
    """Of the panel."""
    lane: Value
    real: Value
    """i1: whether the column lies within the matrix."""
    tensor: Pointer
    """The channel's part of the tensor, if it is real."""
    codes: Pointer
    """Buffer of codes, one i8 an element, `padded_inner` of them."""
    scales: Pointer
    """Buffer of scales."""

    @property
    def scale_type(self) -> ir.Type:
        return self.b.f32 if self.layout.scale == "f32" else self.b.bf16

    def group(self, number: Value) -> Pointer:
        """The codes of a group in their buffer."""
        return self.codes.at(number, self.layout.padded_inner // self.layout.scale_groups)

    @contextmanager
    def real_or_zero(self, buffer: Pointer, bytes_: int) -> Iterator[None]:
        """Clears a buffer; the body is for channels within the matrix only."""
        b = self.b
        b.intrinsic("llvm.memset", None, buffer, b.constant(b.i8, 0), b.index(bytes_), b.constant(b.i1, 0))
        with b.if_(self.real):
            yield

    # --- scales

    def _each_scale(self, visit: Callable[[Pointer, Pointer], None]) -> None:
        """`visit(place in the panel, place in the buffer)`."""
        b, layout = self.b, self.layout
        width = byte_width(self.scale_type)
        place = self.panel.at(self.lane, width) + self.vector * layout.lanes * width
        if layout.grouped:
            with b.for_(0, layout.scale_groups) as loop:
                here = place.at(loop.index, layout.step_bytes) + layout.step_code_bytes
                visit(here, self.scales.at(loop.index, width))
        else:
            visit(place + layout.column_scales, self.scales)

    @property
    def _scale_bits(self) -> ir.Type:
        """An integer as wide as a scale: LLVM may carry a bf16 that is only moved as f32, and round it back by a call
        that nobody provides."""
        return self.b.i32 if self.layout.scale == "f32" else self.b.i16

    def put_scales(self) -> None:
        self._each_scale(lambda place, buffer: place.store(buffer.load(self._scale_bits)))

    def get_scales(self) -> None:
        self._each_scale(lambda place, buffer: buffer.store(place.load(self._scale_bits)))

    # --- codes

    def _each_code(self, visit: Callable[[Pointer, int, Pointer], None]) -> None:
        """`visit(byte of the panel, its lowest bit of the code, place in the buffer)`."""
        b, layout = self.b, self.layout
        with b.for_(0, layout.steps) as step, b.for_(0, layout.step_blocks) as block:
            here = self.panel.at(step.index, layout.step_bytes).at(block.index, layout.block_bytes)
            dots = (step.index * layout.step_blocks + block.index) * layout.block_dots
            buffer = self.codes.at(dots, layout.dot_elements)
            for dot in range(layout.block_dots):
                register, field = divmod(dot * layout.vectors + self.vector, layout.vectors_per_register)
                for element in range(layout.dot_elements):
                    place = here + register * layout.register_bytes
                    place, bit = self._place(place, field, element)
                    visit(place, bit, buffer + (dot * layout.dot_elements + element))

    def _place(self, register: Pointer, field: int, element: int) -> tuple[Pointer, int]:
        """The byte of a register, and the bit in it, where the code of an element of this lane begins."""
        layout = self.layout
        if decode.magnitude_pairs(layout):
            # Every eight elements of two vectors side by side, as interleaving bytes takes them.
            eights, rest = self.lane // 4, self.lane % 4
            return register.at(eights, 16).at(rest, 2) + (8 * field + element), 0
        if layout.bytes_together:
            return register.at(self.lane, layout.dot_elements) + (layout.vector_codes * field + element), 0
        byte, bit = divmod(field * layout.bits, 8)
        return register.at(self.lane, 4) + (element * layout.field_bits // 8 + byte), bit

    def put_codes(self) -> None:
        if self.layout.bits == 8:
            self._each_code(lambda place, bit, buffer: place.store(self._stored(buffer.load(self.b.i8))))
        else:
            self._put_words()

    def _put_words(self) -> None:
        """Codes that come into one lane of a register are put there at once: in a word, of which other vectors have
        other bits."""
        b, layout = self.b, self.layout
        mask = (1 << layout.bits) - 1
        with b.for_(0, layout.steps) as step, b.for_(0, layout.step_blocks) as block:
            here = self.panel.at(step.index, layout.step_bytes).at(block.index, layout.block_bytes)
            dots = (step.index * layout.step_blocks + block.index) * layout.block_dots
            buffer = self.codes.at(dots, layout.dot_elements)
            fields = [divmod(dot * layout.vectors + self.vector, layout.vectors_per_register)
                      for dot in range(layout.block_dots)]  # fmt: skip
            for register in sorted({register for register, _ in fields}):
                place = (here + register * layout.register_bytes).at(self.lane, 4)
                word, taken = b.constant(b.i32, 0), 0
                for dot, (of_register, field) in enumerate(fields):
                    for element in range(layout.dot_elements if of_register == register else 0):
                        bit = element * layout.field_bits + field * layout.bits
                        code = self._stored((buffer + (dot * layout.dot_elements + element)).load(b.i8)) & mask
                        word = word | (b.convert(code, b.i32, signed=False) << bit)
                        taken |= mask << bit
                place.store((place.load(b.i32) & ~taken) | word)

    def get_codes(self) -> None:
        self._each_code(lambda place, bit, buffer: buffer.store(self._code(place.load(self.b.i8), bit)))

    def number(self, code: Value) -> Value:
        """f32: what a code (i8) stands for."""
        b = self.b
        if self.layout.codes.floats:
            return e4m3.widened(b, b.convert(code, b.i32), 0)
        return b.convert(code, b.f32)

    def _stored(self, code: Value) -> Value:
        """A code (i8) as it lies in memory."""
        if self.layout.codes.floats:
            return code
        if decode.magnitude_pairs(self.layout):
            return self.b.select(code < 0, -code | 0x80, code)
        return code + decode.offset(self.layout)

    def _code(self, byte: Value, bit: int) -> Value:
        """The inverse; `byte` holds the code from `bit` on."""
        bits = self.layout.bits
        if self.layout.codes.floats:
            return byte
        if decode.magnitude_pairs(self.layout):
            return self.b.select(byte < 0, -(byte & 0x7F), byte)
        if self.layout.arithmetic.offsets:
            return ((byte >> bit if bit else byte) & ((1 << bits) - 1)) - decode.offset(self.layout)
        up = 8 - bits - bit
        return (byte << up if up else byte).arithmetic_shift(8 - bits) if bits < 8 else byte


def channels(
    b: Builder, layout: CodePanels, operand: int, experts: Value, packed: Pointer, tensor: Pointer, channel_bytes: int
) -> Iterator[Channel]:
    """The code that follows is for every channel of some experts of one weights operand, those of padding among them.

    `packed` and `tensor` begin at the first of the experts; in the tensor a channel has `channel_bytes`.
    """
    codes = b.scratch(align_up(layout.padded_inner))
    scales = b.scratch(align_up(4 * layout.scale_groups))
    with b.for_(0, experts) as expert, b.for_(0, layout.panels) as panel:
        here = packed.at(expert.index, layout.expert_bytes).at(panel.index, layout.panel_bytes)
        for group in range(layout.groups):
            with b.for_(0, layout.lanes) as lane:
                column = panel.index * layout.panel_columns + group * layout.lanes + lane.index
                row = tensor.at(expert.index * layout.columns + column, channel_bytes)
                vector = group * layout.operands + operand
                yield Channel(b, layout, here, vector, lane.index, column < layout.columns, row, codes, scales)
