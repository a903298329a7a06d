"""Codes that are decoded once for all rows of an expert.

A few rows are multiplied by codes that are decoded in registers.  Where rows are many, a unit of a panel is decoded to
bf16 in memory of the thread, where it stays in the caches until the last block has been multiplied by it.  An element
is the same chain of the same multiplications either way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from moec.backends.cpu import decode, tiling
from moec.backends.cpu.builder import Builder, Function
from moec.backends.cpu.codes import CodePanels, DecodedPanels
from moec.backends.cpu.frame import LINE, Call, align_up
from moec.backends.cpu.later import digest
from moec.backends.cpu.sources import At, Coming, Lines, Packed, Streams
from moec.backends.cpu.values import Pointer, Value


@dataclass(frozen=True)
class Decoded:
    """A source: packed codes, as bf16."""

    codes: CodePanels
    packed: Packed

    @property
    def layout(self) -> DecodedPanels:
        return DecodedPanels.of(self.codes)

    @property
    def unit_steps(self) -> int:
        return tiling.unit_steps(self.layout, most=tiling.DECODED_UNIT_BYTES)

    @property
    def chunk(self) -> tiling.Chunk:
        return self.packed.chunk

    @property
    def together(self) -> int:
        return 1

    @property
    def early(self) -> bool:
        return False

    @property
    def part_bytes(self) -> int:
        return align_up(self.unit_steps * self.layout.step_bytes)

    def ahead(self, call: Call, coming: Coming, block: Value, blocks: Value) -> Streams:
        return self.packed.ahead(call, coming, block, blocks)

    def lines(self, call: Call, coming: Coming, block: Value, blocks: Value) -> Sequence[Lines]:
        b = call.b
        share = (coming.next_steps * self.codes.step_bytes + (blocks - 1)) // blocks
        first = self.packed.stream(call, coming.at, coming.first) + share * block
        return [Lines(first, b.index(LINE), b.index(0), (share + (LINE - 1)) // LINE)]

    def expand(self, call: Call, at: At, first: Value, steps: Value, to: Pointer) -> None:
        call.b.call(self._function(call.b), self.packed.stream(call, at, first), steps, to)

    def _function(self, b: Builder) -> Function:
        """`void decode(codes, steps, to)`."""
        codes = self.codes.flat
        source = _Decode(codes)
        return b.later(f"decode_{codes.kernel}_{codes.vectors}_{digest(source)}", [b.ptr, b.i64, b.ptr], source)


@dataclass(frozen=True)
class _Decode:
    """What the function is written from that decodes steps of codes."""

    codes: CodePanels

    def write(self, b: Builder, arguments: Sequence[Any]) -> None:
        codes, layout = self.codes, DecodedPanels.of(self.codes)
        source, steps, target = arguments
        with b.for_(0, steps) as step:
            here, to = source.at(step.index, codes.step_bytes), target.at(step.index, layout.step_bytes)
            with b.for_(0, codes.step_blocks) as loop:
                block = decode.CodeBlock(b, codes, here.at(loop.index, codes.block_bytes))
                registers = codes.block_dots * codes.vectors // layout.vectors_per_register
                place = to.at(loop.index, registers * layout.register_bytes)
                for n in range(registers):
                    at = place + n * layout.register_bytes
                    at.store(_register(b, block, n), align=layout.register_bytes)
            for at in range(0, codes.step_bytes - codes.step_code_bytes, codes.register_bytes):
                scales = (here + codes.step_code_bytes + at).load(b.vec(codes.lanes, b.i32))
                (to + layout.step_code_bytes + at).store(scales)


def _register(b: Builder, block: decode.CodeBlock, number: int) -> Value:
    """A register of decoded codes: two vectors, lane by lane."""
    vectors = block.layout.vectors
    words = b.vec(block.layout.lanes, b.i32)
    low, high = (block.vector(*divmod(2 * number + n, vectors)).bitcast(words) for n in range(2))
    return (low >> 16) | high
