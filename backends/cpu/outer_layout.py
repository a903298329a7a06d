"""Shapes of a weight gradient: a sum over rows of outer products, worked out in tiles of the result.

A *tile* is `most` or fewer columns of operand a by one *panel* (two vectors) of columns of operand b; its sums stay in
registers while rows pass by.  Both operands are copied for that, a few rows deep:

    strip of a    [step][column of the strip][row of the step]
    panel of b    [step][vector][lane][row of the step]

Where bf16 is widened and the result is bf16, columns of a panel alternate between its vectors, so that shifts alone
take them apart, and put them together again.

A step is one row, or two where the dot product of bf16 pairs is used: two rows beside each other, element by element.
"""

from __future__ import annotations

from dataclasses import dataclass

from moec.backends.cpu.builder import Builder
from moec.backends.cpu.frame import LINE
from moec.backends.cpu.isa import Variant
from moec.backends.cpu.values import Value

VECTORS = 2
"""Vectors of a panel; with `MOST_COLUMNS` columns of a they fill the registers (see tiling.most_rows)."""

STRIP_BLOCKS = 8
"""Blocks of columns of a that are copied together: a row's part is then whole cache lines."""

CHUNK_ROWS = 512
"""Most rows whose products are added up in registers before sums go to memory and the next rows are copied."""

PANEL_BYTES = 384 * 1024
"""Bytes of copied panels: with a strip and what is being written they stay in the second-level cache."""

PARTIAL_PANELS, PARTIAL_STRIPS = 6, 4
"""Most panels and strips of a task whose sums have to wait in memory for further rows."""


SHORT_PANEL_BYTES = 192 * 1024
"""The same where steps are short (`isa.Variant.short_steps`)."""

GROUP_BYTES = 8 * 1024
"""Where steps are short, bytes of panels that all blocks of a strip are multiplied by before the next ones: they stay
in the first-level cache.  Two panels at least, which may share lines of the result."""


@dataclass(frozen=True)
class Outer:
    """A gradient tensor<`experts` x `rows` x `columns`>: its `rows` are columns of a, its `columns` those of b."""

    lanes: int
    pairs: bool
    most: int
    """Columns of a in a tile."""
    experts: int
    rows: int
    columns: int
    alternating: bool
    """Column 2 n + v of a panel is lane n of its vector v."""
    panels_most: int
    """Most bytes of copied panels."""

    @property
    def rows_per_step(self) -> int:
        return 2 if self.pairs else 1

    # --- columns of a

    @property
    def blocks(self) -> int:
        """Blocks of `block_size` or one more columns; the larger ones come first."""
        return -(-self.rows // self.most)

    @property
    def block_size(self) -> int:
        return self.rows // self.blocks

    @property
    def larger_blocks(self) -> int:
        return self.rows % self.blocks

    @property
    def strips(self) -> int:
        return -(-self.blocks // STRIP_BLOCKS)

    @property
    def strip_columns(self) -> int:
        """Room for columns in a strip; a strip may hold fewer."""
        return self.most * STRIP_BLOCKS

    @property
    def strip_step_bytes(self) -> int:
        return 4 * self.strip_columns

    @property
    def strip_bytes(self) -> int:
        return CHUNK_ROWS // self.rows_per_step * self.strip_step_bytes

    # --- columns of b

    @property
    def vector_bytes(self) -> int:
        return 4 * self.lanes

    @property
    def panel_columns(self) -> int:
        return VECTORS * self.lanes

    @property
    def panel_step_bytes(self) -> int:
        return VECTORS * self.vector_bytes

    @property
    def panels(self) -> int:
        return -(-self.columns // self.panel_columns)

    def panel_stride(self, b: Builder, steps: Value) -> Value:
        """Bytes between panels: an odd number of lines, so that what a step writes spreads over the caches' sets."""
        lines = (steps * self.panel_step_bytes + (LINE - 1)) // LINE
        return (lines | 1) * LINE

    @property
    def panels_bytes(self) -> int:
        """Of a thread's copied panels and the gaps between them; one panel is copied however large it is."""
        steps = CHUNK_ROWS // self.rows_per_step
        most = max(self.panels_most, steps * self.panel_step_bytes)
        return min(most, self.panels * steps * self.panel_step_bytes) + 2 * self.panels * LINE

    # --- sums

    @property
    def tile_bytes(self) -> int:
        return self.most * self.panel_step_bytes

    @property
    def sums_bytes(self) -> int:
        """Of a thread's sums that wait for further rows."""
        return min(PARTIAL_STRIPS, self.strips) * STRIP_BLOCKS * self.partial_panels * self.tile_bytes

    @property
    def partial_panels(self) -> int:
        """Most panels of a task whose sums wait."""
        return min(PARTIAL_PANELS, self.panels)


def outer(variant: Variant, a: str, b: str, out: str, experts: int, rows: int, columns: int) -> Outer:
    """The shape for operands and a result of these element types ("f32", "bf16", "f16")."""
    pairs = variant.has_dot_bf16 and a == b == "bf16"
    most = min(14, (variant.registers - 1 - VECTORS) // VECTORS)
    alternating = not pairs and a == b == out == "bf16"
    panels_most = SHORT_PANEL_BYTES if variant.short_steps else PANEL_BYTES
    return Outer(variant.lanes, pairs, most, experts, rows, columns, alternating, panels_most)
