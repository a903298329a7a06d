"""linalg.generic on the tensors of one token.

Loops that run through memory together are merged.  If every operand is then contiguous or constant along the last
loop, that loop runs in vectors: elementwise where it is parallel; with one accumulator a lane, added up in a fixed
tree, where it is a reduction.  Anything else runs one element at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from torch_mlir import ir

from moec.backends.base import unsupported
from moec.backends.cpu import elementwise
from moec.backends.cpu.rows import Row, Rows
from moec.backends.cpu.values import Value

INF = float("inf")

# Reductions whose terms may be taken in any grouping: operation -> the value that changes nothing.
NEUTRAL: dict[str, float | int] = {
    "arith.addf": -0.0,
    "arith.mulf": 1.0,
    "arith.maximumf": -INF,
    "arith.minimumf": INF,
    "arith.maxnumf": -INF,
    "arith.minnumf": INF,
    "arith.addi": 0,
    "arith.muli": 1,
    "arith.ori": 0,
    "arith.xori": 0,
    "arith.andi": -1,
    "arith.maxsi": -(2**31),
    "arith.minsi": 2**31 - 1,
}

# A garbage lane behind the last element must not divide.
_TRAPPING = ("arith.divsi", "arith.divui", "arith.remsi", "arith.remui")


@dataclass(frozen=True)
class Axis:
    """A loop: how often, whether it reduces, and how many elements each operand moves on by."""

    size: int
    reduces: bool
    strides: tuple[int, ...]


def generic(rows: Rows, op: Any, operands: Sequence[Row], where: Callable[[ir.Value], Any]) -> list[Row]:
    """The results.  `where` gives the scalar value of something that the region reads from outside."""
    operation = op.operation
    results = [rows.of_type(result.type) for result in operation.results]
    inputs = list(operands[: len(operands) - len(results)])
    block = operation.regions[0].blocks[0]
    for argument, start, result in zip(block.arguments[len(inputs) :], operands[len(inputs) :], results, strict=True):
        if list(argument.uses):
            rows.copy(start, result)
    axes = _merge(_axes(operation, [*inputs, *results]))
    region = _Region(rows, operation, [*inputs, *results], len(inputs), where)
    *outer, inner = axes or [Axis(1, False, (0,) * (len(inputs) + len(results)))]
    if region.vectors_allowed and not inner.reduces and _contiguous(inner, len(inputs)):
        region.elementwise(outer, inner)
    elif region.vectors_allowed and inner.reduces and region.reduction and _reducible(inner, len(inputs)):
        region.reduce(outer, inner)
    else:
        region.scalars([*outer, inner])
    return results


def _axes(operation: ir.Operation, operands: Sequence[Row]) -> list[Axis]:
    maps = [ir.AffineMapAttr(attribute).value for attribute in ir.ArrayAttr(operation.attributes["indexing_maps"])]
    kinds = [str(kind) for kind in ir.ArrayAttr(operation.attributes["iterator_types"])]
    sizes = [1] * len(kinds)
    strides = [[0] * len(operands) for _ in kinds]
    for n, (map_, row) in enumerate(zip(maps, operands, strict=True)):
        step = 1
        for expression, size in reversed(list(zip(map_.results, row.shape, strict=True))):
            if isinstance(expression, ir.AffineDimExpr):
                axis = expression.position
                sizes[axis] = size
                strides[axis][n] += step
            elif not (isinstance(expression, ir.AffineConstantExpr) and expression.value == 0):
                raise unsupported("cpu", operation, f"its indexing map {map_}")
            step *= size
    return [
        Axis(size, "reduction" in kind, tuple(moves)) for size, kind, moves in zip(sizes, kinds, strides, strict=True)
    ]


def _merge(axes: Sequence[Axis]) -> list[Axis]:
    """Without loops of one turn, and with neighbours made one that step through every operand evenly."""
    merged: list[Axis] = []
    for axis in axes:
        if axis.size == 1:
            continue
        last = merged[-1] if merged else None
        if (
            last is not None
            and last.reduces == axis.reduces
            and all(a == b * axis.size for a, b in zip(last.strides, axis.strides, strict=True))
        ):
            merged[-1] = Axis(last.size * axis.size, axis.reduces, axis.strides)
        else:
            merged.append(axis)
    return merged


def _contiguous(axis: Axis, inputs: int) -> bool:
    return all(s in (0, 1) for s in axis.strides[:inputs]) and all(s == 1 for s in axis.strides[inputs:])


def _reducible(axis: Axis, inputs: int) -> bool:
    return all(s in (0, 1) for s in axis.strides[:inputs]) and all(s == 0 for s in axis.strides[inputs:])


class _Region:
    """The body of a generic over its operands, `rows[:inputs]` read and the others written."""

    def __init__(
        self, rows: Rows, operation: ir.Operation, operands: list[Row], inputs: int, where: Callable[[ir.Value], Any]
    ) -> None:
        self.rows = rows
        self.b = rows.b
        self.operation = operation
        self.operands = operands
        self.inputs = inputs
        self.where = where
        self.block = operation.regions[0].blocks[0]
        names = [op.operation.name for op in self.block.operations]
        self.vectors_allowed = not any(name in _TRAPPING for name in names)
        self.reduction = self._reduction()

    def _reduction(self) -> Any:
        """The operation that combines the accumulator with a term, if the region is of that form."""
        if len(self.operands) - self.inputs != 1:
            return None
        (yielded,) = list(self.block.operations)[-1].operation.operands
        accumulator = self.block.arguments[self.inputs]
        if isinstance(yielded.owner, ir.Block) or len(list(accumulator.uses)) != 1:
            return None
        last = yielded.owner.operation
        return last if last.name in NEUTRAL and accumulator in list(last.operands) else None

    def _outer(self, stack: ExitStack, axes: Sequence[Axis]) -> list[Value]:
        """Opens the outer loops; the element at which each operand then stands."""
        b = self.b
        places = [b.index(0) for _ in self.operands]
        for axis in axes:
            loop = stack.enter_context(b.for_(0, axis.size))
            places = [
                place + loop.index * stride if stride else place
                for place, stride in zip(places, axis.strides, strict=True)
            ]
        return places

    def _evaluate(self, arguments: Sequence[Value], lanes: int, only: ir.Value | None = None) -> list[Value]:
        return elementwise.evaluate_block(
            self.b, self.block, arguments, lanes, outside=self.where, results=None if only is None else [only]
        )

    def _load(self, axis: Axis, places: Sequence[Value], index: Value | int, lanes: int) -> list[Value]:
        b = self.b
        loaded = []
        for row, place, stride in zip(self.operands, places, axis.strides, strict=True):
            if stride:
                loaded.append(row.load(b, place + index, lanes))
            else:
                one = row.load(b, place, 1)
                loaded.append(one if lanes == 1 else b.splat(b.vec(lanes, one.type), one))
        return loaded

    def elementwise(self, outer: Sequence[Axis], inner: Axis) -> None:
        b = self.b
        # Past the end of a line lies the next one; only of the last may the padding be written.
        tail = inner.size % self.rows.lanes if outer and inner.size > 1 else 0
        with ExitStack() as stack:
            places = self._outer(stack, outer)

            def write(index: Value | int, lanes: int, first: int | None = None) -> None:
                values = self._evaluate(self._load(inner, places, index, lanes), lanes)
                for value, row, place in zip(values, self.operands[self.inputs :], places[self.inputs :], strict=True):
                    row.store(b, place + index, value, first)

            if inner.size > tail:
                self.rows.each_chunk(inner.size - tail, write)
            if tail:
                write(inner.size - tail, self.rows.lanes, tail)

    def reduce(self, outer: Sequence[Axis], inner: Axis) -> None:
        b, lanes = self.b, self.rows.lanes
        accumulator = self.block.arguments[self.inputs]
        left, right = self.reduction.operands
        term_of = right if left == accumulator else left
        out = self.operands[self.inputs]
        neutral = NEUTRAL[self.reduction.name]
        vector = b.vec(lanes, out.element)

        def combine(x: Value, y: Value) -> Value:
            return elementwise.apply(b, self.reduction, [x, y])

        def term(places: Sequence[Value], index: Value | int) -> Value:
            return self._evaluate(self._load(inner, places, index, lanes), lanes, only=term_of)[0]

        with ExitStack() as stack:
            places = self._outer(stack, outer)
            whole = inner.size - inner.size % lanes
            with b.for_(0, whole, lanes, carry=[b.splat(vector, neutral)]) as loop:
                loop.carry(combine(loop.value, term(places, loop.index)))
            total = loop.result
            if whole < inner.size:
                valid = b.first_lanes(lanes, inner.size - whole)
                total = combine(total, b.select(valid, term(places, whole), neutral))
            place = places[self.inputs]
            out.store(b, place, combine(out.load(b, place, 1), b.reduce(total, combine)))

    def scalars(self, axes: Sequence[Axis]) -> None:
        b = self.b
        with ExitStack() as stack:
            places = self._outer(stack, axes)
            loaded = [row.load(b, place, 1) for row, place in zip(self.operands, places, strict=True)]
            values = self._evaluate(loaded, 1)
            for value, row, place in zip(values, self.operands[self.inputs :], places[self.inputs :], strict=True):
                row.store(b, place, value)
