"""How the weights of a matmul lie in the packed parameters.

A *panel* holds a few vectors of output columns for the whole inner dimension, in the order in which the microkernel
reads them: step after step, and within a step one vector after the other.  The matmuls of one operation that share
their rows (gate and up) share panels, vector beside vector, so that an epilogue finds both accumulators in registers.

    [expert][panel][step][column group of the panel][weights operand][lane][element of the step]

A step is one element of the inner dimension, or two where the dot product of bf16 pairs is used.  Columns and steps
beyond the matrix are zeros.

Weights of bf16 that AVX2 widens are *interleaved*: lane by lane, those of two neighbouring vectors make up words of 32
bits.  A shift and a mask give both vectors from one load.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Self

from moec.backends.cpu.frame import LINE, align_up
from moec.backends.cpu.isa import Variant

FLOATS = frozenset(("f32", "bf16", "f16"))
"""Element types of rows and of weights that are no codes."""


class Arithmetic(Enum):
    """What the microkernel multiplies; accumulators are f32, if not said otherwise."""

    PAIRS = "pairs"
    """bf16 rows by bf16 weights, two elements a step, by `vdpbf16ps`."""
    F32 = "f32"
    """f32 rows by f32 weights."""
    WIDENED = "widened"
    """f32 rows by weights of bf16 or codes, which are widened when loaded."""
    HALVES = "halves"
    """f32 rows by weights of f16, which are widened when loaded: one instruction where there is F16C or AVX-512."""
    BYTES = "bytes"
    """int8 rows by unsigned codes, four elements a step, by `vpdpbusd`; accumulators are i32."""
    WORDS = "words"
    """int8 rows by codes, both widened to i16, two elements a step, by `vpmaddwd`; accumulators are i32."""
    SHORTS = "shorts"
    """int8 rows by unsigned codes of few bits, four elements a step, by `vpmaddubsw`; a few sums are added up in i16
    before they join accumulators of i32."""

    @property
    def elements(self) -> int:
        """Elements of a row in the 4 bytes that are multiplied at once."""
        if self in (Arithmetic.BYTES, Arithmetic.SHORTS):
            return 4
        return 2 if self in (Arithmetic.PAIRS, Arithmetic.WORDS) else 1

    @property
    def integers(self) -> bool:
        return self in (Arithmetic.BYTES, Arithmetic.WORDS, Arithmetic.SHORTS)

    @property
    def offsets(self) -> bool:
        """Whether an offset makes codes unsigned."""
        return self in (Arithmetic.BYTES, Arithmetic.SHORTS)


def arithmetic(variant: Variant, rows: str, weights: str, bits: int = 8) -> Arithmetic:
    """How to multiply rows ("f32", "bf16", "f16" or "i8") by weights ("f32", "bf16", "f16" or "codes" of `bits`)."""
    if rows == "i8" and variant.has_dot_int8:
        return Arithmetic.BYTES
    if rows == "i8":
        return Arithmetic.SHORTS if variant.has_short_dot and bits < 8 else Arithmetic.WORDS
    if weights == "f32":
        return Arithmetic.F32
    if weights == "f16":
        return Arithmetic.HALVES
    return Arithmetic.PAIRS if variant.has_dot_bf16 and rows == "bf16" else Arithmetic.WIDENED


@dataclass(frozen=True)
class Panels:
    """The layout of `operands` weights of tensor<`experts` x `columns` x `inner`>."""

    arithmetic: Arithmetic
    lanes: int
    operands: int
    groups: int
    """Column groups of a panel: vectors of one operand."""
    experts: int
    columns: int
    inner: int

    @property
    def flat(self) -> Self:
        """All of it that panels by themselves depend on: which vectors belong to which operand, and how many panels
        there are, is left out."""
        return replace(self, operands=1, groups=self.vectors, experts=1, columns=self.vectors * self.lanes)

    @property
    def eights(self) -> bool:
        """Whether elements are widened to f32 eight at a time: AVX2's way."""
        return self.arithmetic is Arithmetic.WIDENED and self.lanes == 8

    @property
    def vectors(self) -> int:
        """Weight vectors of one step."""
        return self.operands * self.groups

    @property
    def interleaved(self) -> bool:
        """Whether the lanes of vectors 2n and 2n + 1 of a step alternate."""
        return self.eights and self.vectors % 2 == 0

    @property
    def elements_per_step(self) -> int:
        return self.arithmetic.elements

    @property
    def steps(self) -> int:
        return -(-self.inner // self.elements_per_step)

    @property
    def element_bytes(self) -> int:
        """Of a packed weight."""
        return 4 if self.arithmetic is Arithmetic.F32 else 2

    @property
    def vector_bytes(self) -> int:
        return self.lanes * self.elements_per_step * self.element_bytes

    @property
    def lane_bytes(self) -> int:
        """Between the lanes of a vector."""
        return self.elements_per_step * self.element_bytes * (2 if self.interleaved else 1)

    @property
    def step_bytes(self) -> int:
        return self.vectors * self.vector_bytes

    @property
    def panel_bytes(self) -> int:
        return align_up(self.steps * self.step_bytes, LINE)

    @property
    def prefetched_lines(self) -> int:
        """Lines of the weights stream prefetched a step; with that of the rows stream, at least those of a step."""
        return max(1, -(-self.step_bytes // LINE) - 1)

    @property
    def kernel(self) -> str:
        """A name for all that microkernels depend on, besides the numbers of rows and vectors."""
        return self.arithmetic.value

    @property
    def row_step_bytes(self) -> int:
        """Bytes of a row that a step multiplies."""
        return 4

    @property
    def panel_columns(self) -> int:
        return self.groups * self.lanes

    @property
    def panels(self) -> int:
        """Panels of an expert."""
        return -(-self.columns // self.panel_columns)

    @property
    def expert_bytes(self) -> int:
        return self.panels * self.panel_bytes

    @property
    def bytes(self) -> int:
        return self.experts * self.expert_bytes

    @property
    def row_bytes(self) -> int:
        """Bytes of a row as the microkernel takes it."""
        return self.steps * self.row_step_bytes

    def row_stride(self) -> int:
        """Bytes between rows that are made for the microkernel.

        An odd number of cache lines, so that the rows of a block spread over all sets of the caches.
        """
        lines = -(-self.row_bytes // LINE)
        return (lines | 1) * LINE
