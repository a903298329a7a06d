"""What is said of the packed weights: a name for their form, and which bytes belong to which expert."""

from __future__ import annotations

import hashlib

import moec
from moec.artifact.manifest import ExpertRegion
from moec.backends.cpu.frame import Piece, Region
from moec.backends.cpu.layer import Layer, Plan
from moec.backends.cpu.lender import Lender
from moec.backends.cpu.parameters import elements
from moec.backends.cpu.values import byte_width
from moec.dialect.functions import Routed

_DIGITS = 16


def lender(base: Layer, plan: Plan, borrower: Layer) -> Lender:
    """The packed weights of `base`, of which its `plan` tells, for another layer of the same parameters."""
    own, others = ({tensor.value: tensor.name for tensor in one.parameters} for one in (base, borrower))
    return Lender.of(plan.frame, digest(base, plan), own, others)


def digest(layer: Layer, plan: Plan) -> str:
    """Equal for two plans, of one module or of several, that pack the same weights into the same bytes."""
    names = {tensor.value: tensor.name for tensor in layer.parameters}
    lines = [f"moec {moec.__version__}", f"{plan.frame.packed_bytes} bytes"]
    for offset, region in plan.frame.regions:
        lines.append(f"{offset} {region.bytes} {region.layout!r}")
        lines += [f"{names[piece.parameter]} {piece.parameter.type} {piece.place!r}" for piece in region.pieces]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:_DIGITS]


def expert_regions(layer: Layer, plan: Plan, routed: Routed | None) -> tuple[ExpertRegion, ...]:
    """Where routed experts lie."""
    if routed is None:
        return ()
    of_group = {t.value for t in layer.parameters if t.name.startswith(f"{routed.name}.")}
    found = []
    for offset, region in plan.frame.regions:
        if region.layout is None:
            found += [_rows(offset, piece, routed) for piece in region.pieces if piece.parameter in of_group]
            continue
        numbers = _numbers(region, of_group)
        if any(number >= 0 for number in numbers):
            found.append(ExpertRegion(offset, region.layout.expert_bytes, tuple(numbers)))
    return tuple(found)


def _rows(offset: int, piece: Piece, routed: Routed) -> ExpertRegion:
    """Of a parameter that is kept as it is, such as a bias: one row an expert."""
    type_ = piece.parameter.type
    row, place = elements(type_) // routed.count, piece.place
    width = byte_width(type_.element_type)
    first, count = place.source // row, place.count // row
    return ExpertRegion(offset + place.first * width, row * width, tuple(range(first, first + count)))


def _numbers(region: Region, of_group: set[object]) -> list[int]:
    """For each expert of a region of panels its number in the group, -1 for one of another."""
    numbers = [-1] * (region.layout.experts if region.layout is not None else 0)
    for piece in region.pieces:
        if piece.parameter in of_group:
            for n in range(piece.place.count):
                numbers[piece.place.first + n] = piece.place.source + n
    return numbers
