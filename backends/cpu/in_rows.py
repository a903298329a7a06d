"""Transposed weights of f32, tensor<ExKxN>, multiplied where the caller holds them.

The vectors of a panel lie in rows of the matrix as they are multiplied: expanding would only move them together.  A
unit is some rows of several panels, few enough that they stay in the second-level cache until the last block of rows
has been multiplied by them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from moec.backends.cpu import tiling
from moec.backends.cpu.frame import Call
from moec.backends.cpu.joined import Joined
from moec.backends.cpu.layout import Arithmetic
from moec.backends.cpu.plain import Columns
from moec.backends.cpu.product import pick
from moec.backends.cpu.sources import At, Coming, InPlace, Streams
from moec.backends.cpu.values import Pointer, Value


@dataclass(frozen=True)
class InRows(InPlace):
    """Weights of one parameter, or of several that stand beside each other; a unit has `steps` steps."""

    source: Columns | Joined
    steps: int

    @property
    def unit_steps(self) -> int:
        return self.steps

    @property
    def chunk(self) -> tiling.Chunk:
        return self.source.chunk

    @property
    def together(self) -> int:
        return self.source.together

    @property
    def row_bytes(self) -> int:
        return self._parts[0].layout.columns * self._parts[0].width

    @property
    def part_bytes(self) -> int:
        return self._parts[0].panel_row_bytes

    @property
    def _parts(self) -> tuple[Columns, ...]:
        return _parts(self.source)

    def ahead(self, call: Call, coming: Coming, block: Value, blocks: Value) -> Streams:
        return self.source.ahead(call, coming, block, blocks)

    def stream(self, call: Call, at: At, step: Value) -> Pointer:
        found, begin = call.b.null, 0
        for part in self._parts:
            here = part.matrix(call, 0, at.expert).at(step - begin, self.row_bytes).at(at.panel, self.part_bytes)
            found = pick(call.b, step >= begin, here, found) if begin else here
            begin += part.layout.steps
        return found


def in_rows(source: Columns | Joined) -> InRows | None:
    """These weights where they lie; None where they have to be expanded.

    That is where bf16 is widened or paired, where the last panel is not a whole one, so that zeros have to be put in,
    and where units cannot end where each part does.
    """
    for part in _parts(source):
        layout = part.layout
        if layout.arithmetic is not Arithmetic.F32 or part.width != 4:
            return None
        if layout.operands > 1 or layout.columns % layout.panel_columns:
            return None
    steps = math.gcd(*(part.layout.steps for part in _parts(source)))
    fewest = -(-steps * source.layout.step_bytes * source.together // tiling.RUN_UNIT_BYTES)
    for count in range(fewest, min(2 * fewest, steps) + 1):
        if steps % count == 0:
            return InRows(source, steps // count)
    return None


def _parts(source: Columns | Joined) -> tuple[Columns, ...]:
    return source.parts if isinstance(source, Joined) else (source,)
