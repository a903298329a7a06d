"""A product whose inner dimension is that of several: rows and transposed weights that stand beside each other.

Neither is ever put together in memory: a row is copied from all of its parts, and a unit of weights is expanded from
those whose steps it has.  Each part begins with a step of its own; an odd element at its end gets a zero beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch_mlir import ir

from moec.backends.base import unsupported
from moec.backends.cpu import tiling
from moec.backends.cpu.builder import Builder
from moec.backends.cpu.frame import Call
from moec.backends.cpu.layout import Panels
from moec.backends.cpu.plain import Columns, expanded_part_bytes, operands
from moec.backends.cpu.product import pick
from moec.backends.cpu.sources import At, Coming, Lines, Streams
from moec.backends.cpu.values import Pointer, Value

_BESIDE = 1
"""The axis along which rows, and transposed weights, stand beside each other."""


def beside(value: ir.Value) -> Sequence[ir.Value]:
    """The tensors that stand beside each other in a value, along axis 1; else the value alone."""
    if isinstance(value.owner, ir.Block) or value.owner.operation.name != "tensor.concat":
        return [value]
    operation = value.owner.operation
    along = ir.IntegerAttr(operation.attributes["dim"]).value
    return list(operation.operands) if along == _BESIDE else [value]


def joined_layouts(op: Any, layout: Panels) -> tuple[Panels, ...]:
    """The layout of each part of a matmul's weights, given that of the whole; one, where they are no parts."""
    rows, weights = beside(op.lhs), beside(op.weights[0])
    if len(rows) == len(weights) == 1:
        return (layout,)
    inner = [ir.RankedTensorType(one.type).get_dim_size(_BESIDE) for one in rows]
    given = [ir.RankedTensorType(one.type).get_dim_size(_BESIDE) for one in weights]
    if len(op.weights) > 1 or not op.transposed or inner != given:
        raise unsupported("cpu", op, "rows and transposed weights that stand beside each other have the same parts")
    return tuple(replace(layout, inner=one) for one in inner)


def whole_layout(parts: Sequence[Panels]) -> Panels:
    """The layout of all parts together."""
    return replace(parts[0], inner=sum(part.steps * part.elements_per_step for part in parts))


def join(op: Any, layout: Panels, parts: Sequence[Panels], element: ir.Type) -> Joined:
    """The source of transposed weights that stand beside each other, all plain parameters."""
    unit = tiling.unit_steps(layout, _together(layout, element), tiling.run_unit_bytes(layout))
    bytes_ = expanded_part_bytes(layout, unit)
    made = [
        Columns(part, element, operands([one], part), room=bytes_)
        for one, part in zip(beside(op.weights[0]), parts, strict=True)
    ]
    return Joined(layout, tuple(made), unit, bytes_)


def _pick(b: Builder, condition: Value, then: Pointer | None, otherwise: Pointer | None) -> Pointer | None:
    return None if then is None or otherwise is None else pick(b, condition, then, otherwise)


def _together(layout: Panels, element: ir.Type) -> int:
    return Columns(layout, element, ()).together


@dataclass(frozen=True)
class Joined:
    """Transposed weights of several parts, one behind the other along the inner dimension."""

    layout: Panels
    parts: tuple[Columns, ...]
    unit_steps: int
    part_bytes: int

    @property
    def together(self) -> int:
        return self.parts[0].together

    @property
    def chunk(self) -> tiling.Chunk:
        return self.parts[0].chunk

    @property
    def early(self) -> bool:
        return True

    def _each(self) -> Iterator[tuple[Columns, int, int]]:
        """Every part, its first step and the step behind its last."""
        begin = 0
        for part in self.parts:
            yield part, begin, begin + part.layout.steps
            begin += part.layout.steps

    def ahead(self, call: Call, coming: Coming, block: Value, blocks: Value) -> Streams:
        """As for the part in which the steps that come begin; those of a further part are not prefetched."""
        (first, _, _), *further = self._each()
        found = first.ahead(call, coming, block, blocks)
        for part, begin, _ in further:
            mine = part.ahead(call, replace(coming, first=coming.first - begin), block, blocks)
            here = coming.first >= begin
            found = replace(
                found,
                first=pick(call.b, here, mine.first, found.first),
                second=_pick(call.b, here, mine.second, found.second),
            )
        return found

    def lines(self, call: Call, coming: Coming, block: Value, blocks: Value) -> Sequence[Lines]:
        (first, _, _), *further = self._each()
        (found,) = first.lines(call, coming, block, blocks)
        for part, begin, _ in further:
            (mine,) = part.lines(call, replace(coming, first=coming.first - begin), block, blocks)
            found = replace(found, first=pick(call.b, coming.first >= begin, mine.first, found.first))
        return [found]

    def expand(self, call: Call, at: At, first: Value, steps: Value, to: Pointer) -> None:
        b = call.b
        for part, begin, end in self._each():
            here, last = b.maximum(first, begin), b.minimum(first + steps, end)
            with b.if_(here < last):
                place = to.at(here - first, self.layout.step_bytes)
                part.expand(call, at, here - begin, last - here, place)
