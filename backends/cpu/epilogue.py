"""Epilogue and finish regions on vectors of columns: what they read by `moe.element`, and storing what they yield."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch_mlir import ir

from moec.backends.cpu.builder import Builder
from moec.backends.cpu.frame import PACKED, Call, Frame, Storage, copy_bytes
from moec.backends.cpu.values import Pointer, Value, byte_width


@dataclass(frozen=True)
class Place:
    """Which elements a vector holds: row r, expert e, token t and flat slot s (all i64), from column n on.

    Of its lanes, `real` lie within the matrix; None where the columns are whole vectors, so that all do.
    """

    row: Value
    expert: Value
    token: Value
    slot: Value
    column: Value
    real: Value | None


def read(call: Call, op: Any, place: Place, lanes: int) -> Value:
    """What a `moe.element` operation reads at `place`, a vector of `lanes`."""
    storage = call.frame.storage(op.tensor)
    kind = ir.StringAttr(op.kind).value
    row, column = {
        "row": (place.row, place.column),
        "scalar": (place.row, None),
        "token": (place.token, place.column),
        "token_scalar": (place.token, None),
        "slot": (place.token, place.slot % storage.columns),
        "column": (place.expert, place.column),
        "expert": (place.expert, None),
    }[kind]
    width = byte_width(storage.element)
    address = call.row(storage, row)
    if column is not None:
        address = address.at(column, width)
    vector = call.b.vec(lanes, storage.element)
    if kind not in ("row", "token", "column"):
        return call.b.splat(vector, address.load(storage.element))
    return load(call, storage, address, vector, place.real)


def store(call: Call, storage: Storage, place: Place, row: Value, value: Value) -> None:
    """Stores a vector of results into `row` of a result's storage; lanes beyond the matrix only where nothing lies."""
    b = call.b
    width = byte_width(storage.element)
    address = call.row(storage, row).at(place.column, width)
    if place.real is not None and storage.zeros_behind:
        inside = b.first_lanes(value.lanes, place.real)
        address.store(b.select(inside, value, b.constant(value.type, 0)))
        return
    if place.real is None or _row_holds(storage, value.lanes):
        address.store(value)
        return
    real = place.real
    spill = b.scratch(value.lanes * width)

    def whole() -> list[Value]:
        address.store(value)
        return []

    def part() -> list[Value]:
        spill.store(value)
        copy_bytes(b, address, spill, real * width)
        return []

    b.choose(real >= value.lanes, [], whole, part)


def load(call: Call, storage: Storage, address: Pointer, vector: Any, real: Value | None) -> Value:
    """A vector of a row, of whose lanes `real` (None: all) lie within the row."""
    b = call.b
    lanes = int(vector.shape[0])
    # Everything but what the caller brought may be read a vector beyond its end.
    ours = not storage.given and (storage.word == PACKED or storage.word in {word for word, _ in call.frame.buffers})
    if real is None or ours or _row_holds(storage, lanes):
        return address.load(vector)
    width = byte_width(storage.element)
    spill = b.scratch(lanes * width)

    def part() -> list[Value]:
        copy_bytes(b, spill, address, real * width)
        return [spill.load(vector)]

    (loaded,) = b.choose(real >= lanes, [vector], lambda: [address.load(vector)], part)
    return loaded


def _row_holds(storage: Storage, lanes: int) -> bool:
    """Whether a row has room for whole vectors."""
    return -(-storage.columns // lanes) * lanes * byte_width(storage.element) <= storage.stride


def ragged(columns: int, lanes: int) -> bool:
    """Whether the last vector of a row is a part of one."""
    return columns % lanes != 0


def real_lanes(b: Builder, frame: Frame, columns: int, column: Value) -> Value | None:
    """`Place.real` of the vector at `column`."""
    lanes = frame.variant.lanes
    return b.minimum(b.index(columns) - column, lanes) if ragged(columns, lanes) else None
