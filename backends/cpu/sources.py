"""Where a matmul takes its weights from: what `panel_product` asks a source for.

The microkernel multiplies steps of a panel that lie in the order of `Panels`.  Packed weights lie so in memory.  Other
weights are *expanded*: before its blocks of rows, a unit (some steps of one panel) is written in that order into memory
of the thread, where it stays in the caches until the last block has been multiplied by it.  What is prefetched while a
block is multiplied are the bytes of the source, never what they become.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from moec.backends.cpu import tiling
from moec.backends.cpu.builder import Builder
from moec.backends.cpu.frame import Call
from moec.backends.cpu.layout import Panels
from moec.backends.cpu.values import Pointer, Value


@dataclass(frozen=True)
class At:
    """A panel of an expert; both numbers are i64."""

    expert: Value
    panel: Value

    def pick(self, b: Builder, condition: Value, otherwise: At) -> At:
        """This panel if the condition (i1) holds, else another."""
        expert = b.select(condition, self.expert, otherwise.expert)
        return At(expert, b.select(condition, self.panel, otherwise.panel))


class Source(Protocol):
    """The weights of a matmul, panel by panel."""

    @property
    def step_bytes(self) -> int:
        """Bytes of memory that hold a step of a panel: so many are prefetched for each step that is multiplied."""

    @property
    def unit_bytes(self) -> int:
        """Most bytes of a unit, in the order of `Panels`; of an expanding source, it is memory of each thread."""

    @property
    def expands(self) -> bool:
        """Whether units have to be expanded; `expand` is called only then."""

    def stream(self, call: Call, at: At, step: Value) -> Pointer:
        """Where the bytes of a panel's steps begin, from `step` (i64) on: contiguous, `step_bytes` each.

        Without expansion the microkernel reads weights here, otherwise the address is prefetched only.
        """

    def expand(self, call: Call, at: At, first: Value, steps: Value, to: Pointer) -> None:
        """Writes `steps` steps of a panel from step `first` on to `to`, in the order of `Panels`.

        `to` is aligned to 64 bytes and has room for a unit.  Columns and elements beyond the matrix must become zeros.
        """


@dataclass(frozen=True)
class Packed:
    """Packed weights at an offset of the packed parameters."""

    layout: Panels
    offset: int

    @property
    def step_bytes(self) -> int:
        return self.layout.step_bytes

    @property
    def unit_bytes(self) -> int:
        return tiling.UNIT_BYTES

    @property
    def expands(self) -> bool:
        return False

    def stream(self, call: Call, at: At, step: Value) -> Pointer:
        layout = self.layout
        whole = call.packed(self.offset).at(at.expert, layout.expert_bytes)
        return whole.at(at.panel, layout.panel_bytes).at(step, layout.step_bytes)

    def expand(self, call: Call, at: At, first: Value, steps: Value, to: Pointer) -> None:
        raise TypeError("packed weights are multiplied where they lie")
