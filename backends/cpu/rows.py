"""Tensors of one token while its row program runs: small, static, in memory of the thread or filled with one value."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch_mlir import ir

from moec.backends.cpu.builder import Builder
from moec.backends.cpu.frame import SLACK, Call, Size, align_up
from moec.backends.cpu.values import Pointer, Value, byte_width

INDEX = "index"
_STACK = 8192  # bytes of a row that may lie on the stack, of which a worker thread has little


def width(element: ir.Type) -> int:
    """Bytes that an element takes in memory: a mask's bit takes a byte, an index eight."""
    return 8 if str(element) == INDEX else byte_width(element)


def register(b: Builder, element: ir.Type) -> ir.Type:
    """The type that an element has in registers."""
    return b.i64 if str(element) == INDEX else element


@dataclass(frozen=True)
class Row:
    """A row-major tensor behind `memory`, or one whose elements all are `fill`.

    At least SLACK bytes behind the last element may be read, so that loops may run in whole vectors; what stands there
    is arbitrary.  Behind rows of `Rows.new` they may be written, too.
    """

    shape: tuple[int, ...]
    element: ir.Type
    memory: Pointer | None = None
    fill: Value | None = None

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.count * width(self.element)

    def address(self, index: Value | int) -> Pointer:
        if self.memory is None:
            raise ValueError("a filled row has no address")
        return self.memory.at(index, width(self.element))

    def load(self, b: Builder, index: Value | int, lanes: int) -> Value:
        """Elements index, index + 1, ... (one lane: a scalar)."""
        element = register(b, self.element)
        if self.fill is not None:
            return self.fill if lanes == 1 else b.splat(b.vec(lanes, element), self.fill)
        stored = b.i8 if element == b.i1 else element
        loaded = self.address(index).load(stored if lanes == 1 else b.vec(lanes, stored))
        return loaded.differs(0) if element == b.i1 else loaded

    def store(self, b: Builder, index: Value | int, value: Value, first: int | None = None) -> None:
        """Writes all lanes of `value`, or its first ones only."""
        stored = b.convert(value, b.i8, signed=False) if value.element == b.i1 else value
        if first is None or first >= value.lanes:
            self.address(index).store(stored)
        else:
            self.address(index).store_masked(stored, b.first_lanes(value.lanes, first))

    def reshaped(self, shape: tuple[int, ...]) -> Row:
        return Row(shape, self.element, self.memory, self.fill)


class Rows:
    """Makes rows and loops over them, for the phase that `call` belongs to."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.b: Builder = call.b
        self.lanes = call.frame.variant.lanes

    def new(self, shape: tuple[int, ...], element: ir.Type) -> Row:
        """A row with arbitrary contents, in memory of this thread: the stack, or the workspace if it is large."""
        bytes_ = align_up(max(1, math.prod(shape)) * width(element)) + SLACK
        if bytes_ <= _STACK:
            return Row(shape, element, self.b.scratch(bytes_))
        word = self.call.frame.workspace(Size(per_thread=bytes_))
        return Row(shape, element, self.call.own(word, bytes_))

    def of_type(self, type_: Any) -> Row:
        return self.new(shape_of(type_), type_.element_type)

    def filled(self, type_: Any, fill: Value) -> Row:
        return Row(shape_of(type_), type_.element_type, None, fill)

    def each_chunk(self, count: int, body: Callable[[Value | int, int], None]) -> None:
        """`body(index, lanes)` for every vector of 0..count, the last one whole too; for one element, a scalar."""
        if count == 1:
            body(0, 1)
        elif count <= self.lanes:
            body(0, self.lanes)
        else:
            with self.b.for_(0, count, self.lanes) as loop:
                body(loop.index, self.lanes)

    def copy(self, source: Row, target: Row) -> None:
        """Element by element; `target` must be as large."""

        def move(index: Value | int, lanes: int) -> None:
            target.store(self.b, index, source.load(self.b, index, lanes))

        self.each_chunk(source.count, move)

    def own_copy(self, source: Row) -> Row:
        """A copy of a row behind which nothing may be read."""
        copy = self.new(source.shape, source.element)
        whole = source.count - source.count % self.lanes
        with self.b.for_(0, whole, self.lanes) as loop:
            copy.store(self.b, loop.index, source.load(self.b, loop.index, self.lanes))
        with self.b.for_(whole, source.count) as loop:
            copy.store(self.b, loop.index, source.load(self.b, loop.index, 1))
        return copy


def shape_of(type_: Any) -> tuple[int, ...]:
    return tuple(int(type_.get_dim_size(n)) for n in range(type_.rank))
