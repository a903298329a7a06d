"""Verifiers of the operations for layers whose experts lie on several devices."""

from typing import Any

from moec.dialect.checks import (
    FINISH_KINDS,
    batched,
    elements,
    expect,
    region_elements,
    require,
    scalar_region,
    sound,
)


@sound
def take_rows(op: Any) -> None:
    batched(op.x, "x", 2)
    expect(op.source, "source", (None, 1), "i32")
    require(op.out.type == op.x.type, "the result must have the type of x")


@sound
def collect(op: Any) -> None:
    slots, columns = batched(op.rows, "rows", 3)
    expect(op.rows, "rows", (None, slots, columns), "f32")
    expect(op.places, "places", (None, slots), "i32")
    expect(op.out, "the result", (None, columns))
    scalar_region(op, op.finish, "the finish", 1, elements(op))
    region_elements(op, op.finish, FINISH_KINDS, 1, columns or 0)
