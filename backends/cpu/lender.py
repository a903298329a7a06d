"""The packed weights of the layer that a variant is made from, which the variant's kernels can read in place.

Experts that lie there as they would in the variant's own packed weights are not packed again: a table says of each how
far away it is.  The others are unpacked from there, one at a time, and packed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch_mlir import ir

from moec.backends.cpu.builder import Builder
from moec.backends.cpu.frame import Frame, Piece, Region
from moec.backends.cpu.values import Pointer

if TYPE_CHECKING:
    from moec.backends.cpu.layout import Panels

_Slot = tuple["Panels", frozenset[tuple[str, int, str, int]]]
"""What an expert of a region holds: the layout, as if of no experts, and of each operand its kind, its number, and
the parameter and the expert of it that it is made from."""


@dataclass(frozen=True)
class Expert:
    """One expert of a parameter in the lender's packed weights: where, and what unpacks it."""

    offset: int
    bytes: int
    form: object
    """Equal for experts that `one` is the same code for."""
    one: Callable[[str, Builder, Pointer, Pointer], None]


@dataclass(frozen=True)
class Row:
    """Elements of a parameter that lie as they are: `count` of them from `source` on, at an offset."""

    source: int
    count: int
    offset: int


@dataclass(frozen=True)
class Lender:
    """Packed weights that lie beside those of another layer, whose parameters have the `names`.

    layout  digest of their form
    bytes   how many there are
    """

    layout: str
    bytes: int
    names: Mapping[ir.Value, str]
    _slots: Mapping[_Slot, int]
    _single: Mapping[tuple[str, int], Expert]
    _rows: Mapping[str, tuple[Row, ...]]

    @classmethod
    def of(cls, frame: Frame, layout: str, own: Mapping[ir.Value, str], names: Mapping[ir.Value, str]) -> Lender:
        """Those that `frame` is the plan of; own: the names of its parameters, names: those of the borrower's."""
        slots: dict[_Slot, int] = {}
        single: dict[tuple[str, int], Expert] = {}
        rows: dict[str, tuple[Row, ...]] = {}
        for offset, region in frame.regions:
            if region.layout is None:
                for piece in region.pieces:
                    place, name = piece.place, own[piece.parameter]
                    row = Row(place.source, place.count, offset + place.first * piece.element_bytes)
                    rows[name] = (*rows.get(name, ()), row)
                continue
            for number, slot in enumerate(_slots_of(region, own)):
                slots[slot] = offset + number * region.layout.expert_bytes
            for piece in region.pieces:
                if piece.one is not None:
                    for n in range(piece.place.count):
                        where = offset + (piece.place.first + n) * region.layout.expert_bytes
                        key = own[piece.parameter], piece.place.source + n
                        form = region.layout, piece.place.form
                        single[key] = Expert(where, piece.unit_bytes, form, piece.one)
        return cls(layout, frame.packed_bytes, names, slots, single, rows)

    def experts(self, region: Region) -> list[int] | None:
        """The offset of each expert of a borrower's region; None where one lies otherwise here, or not at all."""
        found = [self._slots.get(slot) for slot in _slots_of(region, self.names)]
        offsets = [offset for offset in found if offset is not None]
        return offsets if len(offsets) == len(found) else None

    def single(self, piece: Piece, number: int) -> Expert | None:
        """The expert that is number `number` of a borrower's piece."""
        found = self._single.get((self.names[piece.parameter], piece.place.source + number))
        return found if found is not None and found.bytes == piece.unit_bytes else None

    def rows(self, piece: Piece) -> list[Row] | None:
        """Where the elements of a borrower's piece that are kept as they are lie, in order; None: not all do."""
        found, at, end = [], piece.place.source, piece.place.source + piece.place.count
        width = piece.element_bytes
        while at < end:
            here = next(
                (r for r in self._rows.get(self.names[piece.parameter], ()) if 0 <= at - r.source < r.count), None
            )
            if here is None:
                return None
            count = min(end, here.source + here.count) - at
            found.append(Row(at, count, here.offset + (at - here.source) * width))
            at += count
        return found


def _slots_of(region: Region, names: Mapping[ir.Value, str]) -> Iterator[_Slot]:
    if region.layout is None:
        return
    held: list[set[tuple[str, int, str, int]]] = [set() for _ in range(region.layout.experts)]
    for piece in region.pieces:
        for n in range(piece.place.count):
            place = piece.place
            held[place.first + n].add((place.kind, place.operand, names[piece.parameter], place.source + n))
    form = replace(region.layout, experts=0)
    for one in held:
        yield form, frozenset(one)
