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
from itertools import groupby
from typing import TYPE_CHECKING

from moec.artifact import adoption
from moec.backends.cpu.builder import Builder, Function
from moec.backends.cpu.frame import ADDRESS, Frame, Region, copy_bytes
from moec.backends.cpu.lender import Expert, Lender, Row
from moec.backends.cpu.values import Pointer, Value

if TYPE_CHECKING:
    from moec.backends.cpu.layout import Panels

_Emit = Callable[[Builder, Pointer, Pointer], None]
"""Takes a builder and the addresses of base and packed parameters."""

_One = Callable[[str, Builder, Pointer, Pointer], None]
"""As of a `frame.Piece`."""


@dataclass(frozen=True)
class _Move:
    """An expert's weights: where they lie in the base, and what unpacks them; where they go, and what packs them."""

    given: Expert
    to: int
    form: object
    """Equal for experts that `pack` is the same code for."""
    pack: _One

    @property
    def code(self) -> tuple[object, object]:
        """Equal where both functions are the same."""
        return self.given.form, self.form


_Copy = tuple[int, int, int]
"""Of bytes: to, from, how many."""


@dataclass(frozen=True)
class Adoption:
    """The steps for one variant, the first and, one each, those that pack experts, and what the manifest says of them.

    moves  experts that are packed by the same code stand beside each other
    """

    first: _Emit
    moves: Sequence[_Move]
    lender: Lender
    described: adoption.Adoption

    @classmethod
    def of(cls, frame: Frame) -> Adoption | None:
        """None where there is no lender, or where it lacks something."""
        lender = frame.lender
        if lender is None:
            return None
        moves: list[_Move] = []
        copies: list[_Copy] = []
        tables: list[tuple[int, Sequence[int]]] = []
        scratch = shared = 0
        for offset, region in frame.regions:
            if offset in frame.tables:
                tables.append((frame.tables[offset], lender.experts(region) or ()))
                shared += region.bytes
                continue
            if region.layout is None:
                found = _copies(lender, offset, region)
                if found is None:
                    return None
                copies += found
            else:
                packed = _packing(lender, offset, region, region.layout)
                if packed is None:
                    return None
                moves += packed
            scratch = max(scratch, *(piece.unit_bytes for piece in region.pieces), 0)
        said = adoption.Adoption(lender.layout, 1 + len(moves), scratch, shared)
        codes = list(dict.fromkeys(move.code for move in moves))
        return cls(_first(tables, copies), sorted(moves, key=lambda move: codes.index(move.code)), lender, said)

    def _places(self, b: Builder) -> Function:
        """`ptr tables()`: from where to where each expert goes, i64."""
        function = b.declare("tables", [], b.ptr)
        with b.define(function):
            b.return_(b.integers([place for move in self.moves for place in (move.given.offset, move.to)]))
        return function

    def function(self, b: Builder) -> Function:
        """`void adopt(i64 step, ptr base, ptr packed, ptr scratch)`."""
        function = b.declare("adopt_step", [b.i64, b.ptr, b.ptr, b.ptr])
        with b.define(function) as (step, base, packed, scratch):
            places = Pointer(b.result(self._places(b)).raw)
            with b.if_(step.equals(0)):
                self.first(b, base, packed)
            begin = 1
            for _, alike in groupby(self.moves, lambda move: move.code):
                move, *others = alike
                end = begin + 1 + len(others)
                with b.if_((step >= begin) & (step < end)):
                    source, to = (places.at((step - 1) * 2 + n, 8).load(b.i64) for n in range(2))
                    move.given.one("unpack", b, base + source, scratch)
                    move.pack("pack", b, packed + to, scratch)
                begin = end
        return function


def _copies(lender: Lender, offset: int, region: Region) -> list[_Copy] | None:
    found = []
    for piece in region.pieces:
        rows = lender.rows(piece)
        if rows is None:
            return None
        width = piece.element_bytes
        found += [_copy(offset, piece.place.first + row.source - piece.place.source, row, width) for row in rows]
    return found


def _copy(offset: int, first: int, row: Row, width: int) -> _Copy:
    return offset + first * width, row.offset, row.count * width


def _packing(lender: Lender, offset: int, region: Region, layout: Panels) -> list[_Move] | None:
    moves = []
    for piece in region.pieces:
        for number in range(piece.place.count):
            given = lender.single(piece, number)
            if given is None or piece.one is None:
                return None
            to = offset + (piece.place.first + number) * layout.expert_bytes
            moves.append(_Move(given, to, (layout, piece.place.form), piece.one))
    return moves


def _first(tables: Sequence[tuple[int, Sequence[int]]], copies: Sequence[_Copy]) -> _Emit:
    def emit(b: Builder, base: Pointer, packed: Pointer) -> None:
        away: Value = b.integer(base) - b.integer(packed)
        for table, experts in tables:
            places = b.integers(experts)
            with b.for_(0, len(experts)) as loop:
                at = places.at(loop.index, 8).load(b.i64)
                (packed + table).at(loop.index, ADDRESS).store(away + at)
        for to, source, count in copies:
            copy_bytes(b, packed + to, base + source, count)

    return emit
