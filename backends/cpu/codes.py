"""How quantised weights lie in the packed parameters: as small numbers, with their scales beside them.

A vector register of codes holds several *vectors* of weights as the multiplication takes them: every field of
`field_bits` (the width of one element of a multiplication) has one code of each.  Shifts and look-ups make one after
the other of them, so that a code takes `bits` in memory and nothing is ever written in a wider form.

    [expert][panel] {[step] {[block][register of codes]  [vector][lane] scales of the step}  [vector][lane] scales}

Scales of groups follow the codes of their step, scales of channels stand at the end of the panel.  A *dot* is one
multiplication of every vector of the panel: 4 bytes of each row.  A *block* are as many dots as fill whole registers.
A *step* is a group where there are groups of scales, otherwise a chain of few dots or the blocks of a line.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import gcd

from moec.backends.cpu.frame import LINE, align_up
from moec.backends.cpu.layout import Arithmetic, Panels
from moec.formats import Codes

CHAIN_ELEMENTS = 32
"""Elements that are added up before their sum joins the total, where rows are floats and codes shorter than a byte, or
vectors have 8 lanes.

With one row there are two chains of multiply-adds, whose latency would take longer than reading short codes does; the
processor runs several chains at once if each ends soon."""

SUM_FACTOR = 8
"""What sums of a group's elements are multiplied by in rows: the offset of 4-bit codes, whose sums begin with these."""


@dataclass(frozen=True)
class CodeRows:
    """How rows lie that are multiplied by codes: groups, or the whole row, padded with zeros to whole steps.

    Of integers, the negated sum of a group's elements times SUM_FACTOR, i32, follows each group where there are
    several; behind them all stand the negated sum of the row, i32, and its scale, f32.
    """

    arithmetic: Arithmetic
    inner: int
    groups: int
    group_dots: int
    """Dots of a group, padded."""

    @property
    def grouped(self) -> bool:
        return self.groups > 1

    @property
    def group(self) -> int:
        """Elements of a group."""
        return self.inner // self.groups

    @property
    def padded_inner(self) -> int:
        """Elements of a row with the zeros."""
        return self.groups * self.group_dots * self.arithmetic.elements

    @property
    def group_sum(self) -> int:
        """Where, from the beginning of a group on, its sum stands."""
        return 4 * self.group_dots

    @property
    def group_bytes(self) -> int:
        """Between the beginnings of groups."""
        return 4 * self.group_dots + (4 if self.grouped and self.arithmetic.integers else 0)

    @property
    def sum(self) -> int:
        """Where the sum of the row stands."""
        return self.groups * self.group_bytes

    @property
    def scale(self) -> int:
        return self.sum + 4

    @property
    def bytes(self) -> int:
        return self.sum + (8 if self.arithmetic.integers else 0)


@dataclass(frozen=True)
class CodePanels(Panels):
    """The layout of quantised weights; `arithmetic` is never F32."""

    codes: Codes
    scale_groups: int
    """Scales of a channel."""
    scale: str
    """Their element type, "f32" or "bf16"."""

    # --- registers of codes

    @property
    def bits(self) -> int:
        """Of a code."""
        return self.codes.bits

    @property
    def dot_elements(self) -> int:
        """Elements of a row that a dot multiplies."""
        return self.arithmetic.elements

    @property
    def field_bits(self) -> int:
        return 32 // self.dot_elements

    @property
    def vectors_per_register(self) -> int:
        return self.field_bits // self.bits

    @property
    def register_bytes(self) -> int:
        return 4 * self.lanes

    @property
    def widened_integers(self) -> bool:
        """Whether codes are whole numbers that are widened eight at a time."""
        return self.eights and not self.codes.floats

    @property
    def widened_words(self) -> bool:
        """Whether codes are widened to i16 while they are loaded: AVX2's way."""
        return self.arithmetic is Arithmetic.WORDS and self.bits == 8 and self.lanes == 8

    @property
    def bytes_together(self) -> bool:
        """Whether the bytes of a vector lie side by side instead of in fields: AVX2 widens them while it loads."""
        return self.bits == 8 and (self.eights or self.widened_words)

    @property
    def vector_codes(self) -> int:
        """Codes of a vector of weights."""
        return self.lanes * self.dot_elements

    @property
    def block_dots(self) -> int:
        return self.vectors_per_register // gcd(self.vectors_per_register, self.vectors)

    @property
    def block_registers(self) -> int:
        return self.block_dots * self.vectors // self.vectors_per_register

    @property
    def block_bytes(self) -> int:
        return self.block_registers * self.register_bytes

    # --- steps

    @property
    def group(self) -> int:
        """Elements that share a scale."""
        return self.inner // self.scale_groups

    @property
    def grouped(self) -> bool:
        return self.scale_groups > 1

    @property
    def largest_sum(self) -> int:
        """The largest magnitude that an integer sum, or what is kept of one in rows, can have; 0 where sums are f32."""
        if not self.arithmetic.integers:
            return 0
        return self.group * 127 * max(1 << (self.bits - 1), SUM_FACTOR if self.grouped else 0)

    @property
    def short(self) -> bool:
        """Whether sums of a few dots are i16."""
        return self.arithmetic is Arithmetic.SHORTS

    @property
    def short_dots(self) -> int:
        """Dots of unsigned codes and of rows up to 127 whose sums fit into i16; a power of two."""
        most = ((1 << 15) - 1) // (2 * 127 * ((1 << self.bits) - 1))
        return 1 << (most.bit_length() - 1)

    @property
    def chained(self) -> bool:
        """Whether a step has sums of its own, which are added to totals."""
        quickly_read = self.bits < 8 or self.lanes == 8
        return self.grouped or self.short or (not self.integer_totals and quickly_read)

    @property
    def integer_totals(self) -> bool:
        """Whether totals are i32 instead of f32."""
        return self.arithmetic.integers and not self.grouped

    @property
    def step_blocks(self) -> int:
        if not self.chained:
            return max(1, LINE // self.block_bytes)
        chain = self.short_dots * self.dot_elements if self.short else CHAIN_ELEMENTS
        elements = self.group if self.grouped else chain
        return -(-elements // (self.dot_elements * self.block_dots))

    @property
    def step_dots(self) -> int:
        return self.step_blocks * self.block_dots

    @property
    def elements_per_step(self) -> int:
        """Without the padding that makes a group whole blocks."""
        return self.group if self.grouped else self.step_dots * self.dot_elements

    @property
    def scale_bytes(self) -> int:
        """Of the scales of one group, or channel, of every column of a panel."""
        return self.vectors * self.lanes * (4 if self.scale == "f32" else 2)

    @property
    def step_code_bytes(self) -> int:
        return self.step_blocks * self.block_bytes

    @property
    def step_bytes(self) -> int:
        scales = align_up(self.scale_bytes, self.register_bytes) if self.grouped else 0
        return self.step_code_bytes + scales

    @property
    def column_scales(self) -> int:
        """Where, in a panel, the scales of channels begin."""
        return self.steps * self.step_bytes

    @property
    def panel_bytes(self) -> int:
        return align_up(self.column_scales + (0 if self.grouped else self.scale_bytes), LINE)

    @property
    def prefetched_lines(self) -> int:
        """As many as a step has where it is a chain."""
        return -(-self.step_bytes // LINE) if self.chained else super().prefetched_lines

    @property
    def kernel(self) -> str:
        groups = f"_{self.step_dots}_{self.scale}" if self.grouped else ""
        steps = f"_{self.steps}" if self.chained else ""
        codes = self.codes.element if self.codes.floats else self.bits
        return f"{self.arithmetic.value}_{codes}{groups}{steps}"

    # --- rows

    @property
    def row(self) -> CodeRows:
        dots = self.step_dots if self.grouped else self.steps * self.step_dots
        return CodeRows(self.arithmetic, self.inner, self.scale_groups, dots)

    @property
    def row_step_bytes(self) -> int:
        return self.row.group_bytes if self.grouped else 4 * self.step_dots

    @property
    def padded_inner(self) -> int:
        return self.row.padded_inner

    @property
    def row_bytes(self) -> int:
        return self.row.bytes


@dataclass(frozen=True)
class DecodedPanels(CodePanels):
    """Codes of WIDENED that have been decoded to bf16, which all of them are exactly.

    They lie as codes of 16 bits do.  Steps, rows, and the order of sums are those of the panels that they were.
    """

    packed_step_dots: int

    @staticmethod
    def of(layout: CodePanels) -> DecodedPanels:
        given = {field.name: getattr(layout, field.name) for field in fields(layout)}
        return DecodedPanels(**given, packed_step_dots=layout.step_dots)

    @property
    def bits(self) -> int:
        return 16

    @property
    def step_blocks(self) -> int:
        return self.packed_step_dots // self.block_dots

    @property
    def kernel(self) -> str:
        return f"decoded_{super().kernel}"
