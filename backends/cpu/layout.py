"""How the weights of a matmul lie in the packed parameters.

A *panel* holds a few vectors of output columns for the whole inner dimension, in the order in which the microkernel
reads them: step after step, and within a step one vector after the other.  The matmuls of one operation that share
their rows (gate and up) share panels, vector beside vector, so that an epilogue finds both accumulators in registers.

    [expert][panel][step][column group of the panel][weights operand][lane][element of the step]

A step is one element of the inner dimension, or two where the dot product of bf16 pairs is used.  Columns and steps
beyond the matrix are zeros.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from moec.backends.cpu.frame import LINE, align_up
from moec.backends.cpu.isa import Variant


class Arithmetic(Enum):
    """What the microkernel multiplies; accumulators are f32 in every case."""

    PAIRS = "pairs"
    """bf16 rows by bf16 weights, two elements a step, by `vdpbf16ps`."""
    F32 = "f32"
    """f32 rows by f32 weights."""
    WIDENED = "widened"
    """f32 rows by bf16 weights, which are widened when loaded."""


def arithmetic(variant: Variant, rows: str, weights: str) -> Arithmetic:
    """How to multiply rows of one element type ("f32" or "bf16") by weights of another."""
    if weights == "f32":
        return Arithmetic.F32
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
    def vectors(self) -> int:
        """Weight vectors of one step."""
        return self.operands * self.groups

    @property
    def elements_per_step(self) -> int:
        return 2 if self.arithmetic is Arithmetic.PAIRS else 1

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
    def step_bytes(self) -> int:
        return self.vectors * self.vector_bytes

    @property
    def panel_bytes(self) -> int:
        return align_up(self.steps * self.step_bytes, LINE)

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

    def row_stride(self) -> int:
        """Bytes between rows that are copied for the microkernel, of 4 bytes a step.

        An odd number of cache lines, so that the rows of a block spread over all sets of the caches.
        """
        lines = -(-4 * self.steps // LINE)
        return (lines | 1) * LINE
