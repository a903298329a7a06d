"""Packing of weights into panels, and unpacking without loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch_mlir import ir

from moec.backends.base import unsupported
from moec.backends.cpu.builder import Builder
from moec.backends.cpu.frame import LINE, Piece, Place, Region
from moec.backends.cpu.later import Source, digest
from moec.backends.cpu.layout import Panels
from moec.backends.cpu.parameters import Part, parts
from moec.backends.cpu.transpose import transpose
from moec.backends.cpu.values import Pointer, Value


def region(op: Any, weights: Sequence[ir.Value], layout: Panels) -> Region:
    """The packed region of the weights operands, in order, of `op`, each tensor<ExNxK>."""
    pieces = []
    for operand, value in enumerate(weights):
        for part in parts(value):
            pieces.append(_piece(layout, operand, part, experts_of(op, part, layout.columns * layout.inner)))
    return Region(layout.bytes, tuple(pieces), layout)


@dataclass(frozen=True)
class Experts:
    """`count` experts of a parameter from `source` on, which are those from `first` on of a matmul."""

    source: int
    first: int
    count: int


def experts_of(op: Any, part: Part, matrix: int) -> Experts:
    """The experts of a part, each of `matrix` elements.  Raises Unsupported where it holds a part of one."""
    found = [divmod(number, matrix) for number in (part.source, part.begin, part.count)]
    if any(rest for _, rest in found):
        raise unsupported("cpu", op, f"parameters must be stacked by whole experts of {matrix} elements")
    return Experts(*(whole for whole, _ in found))


def named(what: str, operand: int, source: Source) -> str:
    """The name of a function that packs any experts of one operand, the same for all pieces that can share it."""
    return f"{what}_{operand}_{digest(source)}"


def _piece(layout: Panels, operand: int, part: Part, experts: Experts) -> Piece:
    """A part of one operand."""

    def some(count: int, name: str, b: Builder, packed: Pointer, tensor: Pointer) -> None:
        source = _Mover(replace(layout, experts=1), operand, name)
        function = b.later(named(name, operand, source), [b.ptr, b.ptr, b.i64], source)
        b.call(function, packed, tensor, b.index(count))

    def walk(name: str, b: Builder, packed: Pointer, tensor: Pointer) -> None:
        first = tensor + part.source * layout.element_bytes
        some(experts.count, name, b, packed.at(experts.first, layout.expert_bytes), first)

    place = Place("weights", operand, experts.source, experts.first, experts.count)
    matrix = layout.columns * layout.inner * layout.element_bytes
    return Piece(part.parameter, place, partial(walk, "pack"), partial(walk, "unpack"), partial(some, 1), matrix)


@dataclass(frozen=True)
class _Mover:
    """What the function is written from that packs or unpacks any experts."""

    layout: Panels
    operand: int
    what: str
    """ "pack" or "unpack"."""

    def write(self, b: Builder, arguments: Sequence[Any]) -> None:
        layout, (packed, tensor, count) = self.layout, arguments
        element = b.i32 if layout.element_bytes == 4 else b.i16
        zero = b.constant(element, 0)

        def take(place: Pointer, given: Pointer) -> None:
            place.store(given.load(element))

        def give(place: Pointer, wanted: Pointer) -> None:
            wanted.store(place.load(element))

        if self.what == "pack":
            _walk(b, layout, self.operand, packed, tensor, count, take, lambda place: place.store(zero))
        else:
            _walk(b, layout, self.operand, packed, tensor, count, give, None, _give_squares)


def _walk(
    b: Builder,
    layout: Panels,
    operand: int,
    packed: Pointer,
    tensor: Pointer,
    count: Value,
    visit: Callable[[Pointer, Pointer], None],
    pad: Callable[[Pointer], None] | None,
    quickly: Callable[[Builder, Panels, _Vector, Pointer, Value], Value] | None = None,
) -> None:
    """`visit(packed element, tensor element)` for every element of `count` experts, `pad(packed element)` for padding.

    quickly: does so for some steps of a vector of columns that all exist, and gives how many of the first ones

    Goes a cache line of the tensor at a time through the lanes of a vector, so that the part of the panel that is
    being written stays in the first-level cache.
    """
    width, pair = layout.element_bytes, layout.elements_per_step
    line = LINE // width
    with b.for_(0, count) as expert, b.for_(0, layout.panels) as panel, b.for_(0, layout.groups) as group:
        here = packed.at(expert.index, layout.expert_bytes).at(panel.index, layout.panel_bytes)
        vector = _vector(layout, here, group.index, operand)
        here = vector.first + vector.byte
        column = panel.index * layout.panel_columns + group.index * layout.lanes
        rows = tensor.at(expert.index * layout.columns + column, layout.inner * width)

        def place(step: Value, lane: Value, half: Value | int) -> Pointer:
            return here.at(step, layout.step_bytes).at(lane, layout.lane_bytes).at(half, width)

        def lanes(begin: Value | int, end: Value | int, steps: tuple[Value | int, Value | int]) -> None:
            with b.for_(begin, end) as lane:
                row = rows.at(lane.index, layout.inner * width)
                with b.for_(*steps) as step:
                    for half in range(pair):
                        place_ = place(step.index, lane.index, half)
                        visit(place_, row.at(step.index * pair + half, width))

        real = b.maximum(b.minimum(b.index(layout.columns) - column, layout.lanes), 0)
        whole = layout.inner // pair
        block = max(1, line // pair)
        done = quickly(b, layout, vector, rows, real) if quickly is not None else 0
        with b.for_(done, whole, block) as steps:
            lanes(0, real, (steps.index, b.minimum(steps.index + block, whole)))
        if whole < layout.steps:
            with b.for_(0, real) as lane:
                row = rows.at(lane.index, layout.inner * width)
                visit(place(b.index(whole), lane.index, 0), row + 2 * whole * width)
                if pad:
                    pad(place(b.index(whole), lane.index, 1))
        if pad:
            with b.for_(0, layout.steps) as step, b.for_(real, layout.lanes) as lane:
                for half in range(pair):
                    pad(place(step.index, lane.index, half))


@dataclass(frozen=True)
class _Vector:
    """Where the lanes of a vector lie in the first step: from `first` on; its elements begin `byte` bytes behind."""

    first: Pointer
    byte: Value


def _vector(layout: Panels, step: Pointer, group: Value, operand: int) -> _Vector:
    if layout.interleaved:
        number = group * layout.operands + operand
        return _Vector(step.at(number // 2, 2 * layout.vector_bytes), number % 2 * layout.element_bytes)
    return _Vector(step.at(group * layout.operands + operand, layout.vector_bytes), group * 0)


def _give_squares(b: Builder, layout: Panels, vector: _Vector, rows: Pointer, real: Value) -> Value:
    """Unpacks as many steps at a time as there are lanes, where a lane has 4 bytes of a step: moves one at a time take
    three times as long."""
    if layout.lane_bytes != 4:
        return b.index(0)
    lanes, width = layout.lanes, layout.element_bytes
    words = b.vec(lanes, b.i32)
    steps = layout.inner // layout.elements_per_step // lanes * lanes
    end = b.select(real.equals(lanes), b.index(steps), 0)
    with b.for_(0, end, lanes) as loop:
        at = vector.first.at(loop.index, layout.step_bytes)
        square = [(at + n * layout.step_bytes).load(words, align=4) for n in range(lanes)]
        for lane, column in enumerate(transpose(b, square)):
            row = rows + lane * layout.inner * width
            if layout.interleaved:
                half = column >> b.splat(words, b.convert(vector.byte * 8, b.i32))
                row.at(loop.index, width).store(b.convert(half, b.i16))
            else:
                row.at(loop.index, 4).store(column, align=width)
    return end
