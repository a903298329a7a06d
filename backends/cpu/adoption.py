"""`adopt`: packed weights from those of the layer that a variant is made from, with no more work than is needed.

| function | |
|---|---|
| `adopt(variant, step, base, packed, scratch)` | one of the steps that fill the packed parameters, in any order |

The first step fills the tables of experts that are read where they lie in `base`, and copies what is kept as it is.
Each other unpacks one expert's weights into `scratch` and packs them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from moec.artifact import adoption
from moec.backends.cpu.builder import Builder, Function
from moec.backends.cpu.frame import ADDRESS, Frame, Region, copy_bytes
from moec.backends.cpu.lender import Lender, Row
from moec.backends.cpu.values import Pointer, Value

_Emit = Callable[[Builder, Pointer, Pointer, Pointer], None]
"""Takes a builder and the addresses of base, packed parameters and scratch memory."""


@dataclass(frozen=True)
class Adoption:
    """The steps for one variant, and what the manifest says of them."""

    steps: Sequence[_Emit]
    lender: Lender
    described: adoption.Adoption

    @classmethod
    def of(cls, frame: Frame) -> Adoption | None:
        """None where there is no lender, or where it lacks something."""
        lender = frame.lender
        if lender is None:
            return None
        steps: list[_Emit] = []
        copies: list[tuple[int, int, int]] = []
        tables: list[tuple[int, Sequence[int]]] = []
        scratch = shared = 0
        for offset, region in frame.regions:
            if offset in frame.tables:
                tables.append((frame.tables[offset], lender.experts(region) or ()))
                shared += region.bytes
                continue
            found = _copies(lender, offset, region) if region.layout is None else _packing(lender, offset, region)
            if found is None:
                return None
            copies += found[0]
            steps += found[1]
            scratch = max(scratch, *(piece.unit_bytes for piece in region.pieces), 0)
        said = adoption.Adoption(lender.layout, 1 + len(steps), scratch, shared)
        return cls([_first(tables, copies), *steps], lender, said)

    def function(self, b: Builder) -> Function:
        """`void adopt(i64 step, ptr base, ptr packed, ptr scratch)`."""
        function = b.declare("adopt_step", [b.i64, b.ptr, b.ptr, b.ptr])
        with b.define(function) as (step, base, packed, scratch):
            for number, emit in enumerate(self.steps):
                with b.if_(step.equals(number)):
                    emit(b, base, packed, scratch)
        return function


_Found = tuple[list[tuple[int, int, int]], list[_Emit]]
"""Copies of bytes (to, from, how many), and steps."""


def _copies(lender: Lender, offset: int, region: Region) -> _Found | None:
    found = []
    for piece in region.pieces:
        rows = lender.rows(piece)
        if rows is None:
            return None
        width = piece.element_bytes
        found += [_copy(offset, piece.place.first + row.source - piece.place.source, row, width) for row in rows]
    return found, []


def _copy(offset: int, first: int, row: Row, width: int) -> tuple[int, int, int]:
    return offset + first * width, row.offset, row.count * width


def _packing(lender: Lender, offset: int, region: Region) -> _Found | None:
    steps: list[_Emit] = []
    for piece in region.pieces:
        for number in range(piece.place.count):
            given, pack = lender.single(piece, number), piece.one
            if given is None or pack is None or region.layout is None:
                return None
            to = offset + (piece.place.first + number) * region.layout.expert_bytes

            def step(  # type: ignore[no-untyped-def]
                b: Builder, base: Pointer, packed: Pointer, scratch: Pointer, to=to, given=given, pack=pack
            ) -> None:
                given.one("unpack", b, base + given.offset, scratch)
                pack("pack", b, packed + to, scratch)

            steps.append(step)
    return [], steps


def _first(tables: Sequence[tuple[int, Sequence[int]]], copies: Sequence[tuple[int, int, int]]) -> _Emit:
    def emit(b: Builder, base: Pointer, packed: Pointer, scratch: Pointer) -> None:
        away: Value = b.integer(base) - b.integer(packed)
        for table, experts in tables:
            for number, at in enumerate(experts):
                (packed + (table + ADDRESS * number)).store(away + at)
        for to, source, count in copies:
            copy_bytes(b, packed + to, base + source, count)

    return emit
