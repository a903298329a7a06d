"""Runs the region of a `moe.route` for one token: every operation on its small tensors, in order."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch_mlir import ir

from moec.backends.base import unsupported
from moec.backends.cpu import elementwise, rowchoice, rowgeneric
from moec.backends.cpu.frame import SLACK, Call, Storage
from moec.backends.cpu.rows import INDEX, Row, Rows, register, shape_of
from moec.backends.cpu.values import Value

_DYNAMIC = -(2**63)
_SCALAR_ONLY = ("arith.divsi", "arith.divui", "arith.remsi", "arith.remui")
_NUMPY = {"f32": np.float32, "f64": np.float64, "i32": np.int32, "i64": np.int64, INDEX: np.int64, "i1": np.int8}


class Program:
    """Emits the operations of a row program for the token `token`."""

    def __init__(self, call: Call, storages: Mapping[ir.Value, Storage], range_error: int) -> None:
        self.call = call
        self.b = call.b
        self.rows = Rows(call)
        self.storages = storages
        self.range_error = range_error
        self.token: Value | int = 0
        self.values: dict[ir.Value, Row | Value] = {}

    def run(self, block: ir.Block, token: Value, *own: Storage) -> list[Row]:
        """What the block yields for a token, whose rows of `own` are the block's arguments."""
        self.token = token
        for argument, storage in zip(block.arguments, own, strict=True):
            self.values[argument] = self._row_of(storage, argument.type)
        *body, end = block.operations
        for op in body:
            self._step(op)
        return [self.row(operand) for operand in end.operation.operands]

    # --- values

    def row(self, value: ir.Value) -> Row:
        found = self._value(value)
        if isinstance(found, Row):
            return found
        return Row((), value.type, None, found)

    def scalar(self, value: ir.Value) -> Value:
        found = self._value(value)
        return found.load(self.b, 0, 1) if isinstance(found, Row) else found

    def _value(self, value: ir.Value) -> Row | Value:
        if value not in self.values:
            self.values[value] = self._outside(value)
        return self.values[value]

    def _outside(self, value: ir.Value) -> Row | Value:
        """A constant or a parameter, from around the region."""
        if value in self.storages:
            return Row(shape_of(value.type), value.type.element_type, self.call.address(self.storages[value]))
        if not isinstance(value.owner, ir.Block) and value.owner.operation.name == "arith.constant":
            return self._constant(value.owner.operation)
        raise unsupported("cpu", value.owner, "a row program can read parameters and constants from outside only")

    def _row_of(self, storage: Storage, type_: Any) -> Row:
        """This token's row of a tensor in token order."""
        row = Row(shape_of(type_), type_.element_type, self.call.row(storage, self.token))
        return self.rows.own_copy(row) if storage.given else row

    def _constant(self, op: ir.Operation) -> Row | Value:
        type_ = op.results[0].type
        attribute = op.attributes["value"]
        if not isinstance(type_, ir.RankedTensorType):
            return elementwise.constant_of(self.b, op, 1)
        if attribute.is_splat:
            return self.rows.filled(type_, elementwise.constant_of(self.b, op, 1))
        kind = str(type_.element_type)
        if kind not in _NUMPY:
            raise unsupported("cpu", op, f"a constant of {kind} with several values")
        data = np.array(ir.DenseElementsAttr(attribute)).astype(_NUMPY[kind]).tobytes()
        return Row(shape_of(type_), type_.element_type, self.b.data(data + bytes(SLACK)))

    # --- operations

    def _step(self, op: Any) -> None:
        operation = op.operation
        name = operation.name
        if name == "linalg.generic":
            operands = [self.row(operand) for operand in operation.operands]
            results: list[Row | Value] = [*rowgeneric.generic(self.rows, op, operands, self.scalar)]
        elif name in _MEANING:
            results = [_MEANING[name](self, op)]
        elif elementwise.known(name):
            results = [self._elementwise(operation)]
        else:
            raise unsupported("cpu", operation, "a row program cannot compute it")
        self.values.update(zip(operation.results, results, strict=True))

    def _elementwise(self, operation: ir.Operation) -> Row | Value:
        b = self.b
        type_ = operation.results[0].type
        if not isinstance(type_, ir.RankedTensorType):
            return elementwise.apply(b, operation, [self.scalar(operand) for operand in operation.operands])
        operands = [self.row(operand) for operand in operation.operands]
        out = self.rows.of_type(type_)

        def write(index: Value | int, lanes: int) -> None:
            out.store(b, index, elementwise.apply(b, operation, [row.load(b, index, lanes) for row in operands]))

        if operation.name in _SCALAR_ONLY:  # a lane behind the last element may divide by zero
            with b.for_(0, out.count) as loop:
                write(loop.index, 1)
        else:
            self.rows.each_chunk(out.count, write)
        return out

    def _reshape(self, op: Any) -> Row:
        return self.row(op.operation.operands[0]).reshaped(shape_of(op.operation.results[0].type))

    def _splat(self, op: Any) -> Row:
        return self.rows.filled(op.operation.results[0].type, self.scalar(op.operation.operands[0]))

    def _empty(self, op: Any) -> Row:
        type_ = op.operation.results[0].type
        return self.rows.filled(type_, self.b.constant(register(self.b, type_.element_type), 0))

    def _token_row(self, op: Any) -> Row:
        (whole,) = op.operation.operands
        return self._row_of(self.storages[whole], op.operation.results[0].type)

    def _checked(self, place: Value, limit: int) -> Value:
        """`place` as i64 if 0 <= place < limit; else an error is noted and 0 stands for it."""
        b = self.b
        wide = b.convert(place, b.i64)
        inside = wide.unsigned_below(limit)
        with b.if_(inside ^ 1):
            self.call.fail(self.range_error)
        return b.select(inside, wide, 0)

    def _extract(self, op: Any) -> Value:
        source, *places = op.operation.operands
        row = self.row(source)
        at: Value = self.b.index(0)
        for place, size in zip(places, row.shape, strict=True):
            at = at * size + self._checked(self.scalar(place), size)
        return row.load(self.b, at, 1)

    def _extract_slice(self, op: Any) -> Row:
        b, operation = self.b, op.operation
        source = self.row(operation.operands[0])
        offsets, sizes, strides = (
            [int(n) for n in ir.DenseI64ArrayAttr(operation.attributes[name])]
            for name in ("static_offsets", "static_sizes", "static_strides")
        )
        if any(n == _DYNAMIC for n in sizes) or any(n != 1 for n in strides):
            raise unsupported("cpu", operation, "sizes must be static and strides 1")
        dynamic = iter(operation.operands[1:])
        starts = [
            self._checked(self.scalar(next(dynamic)), whole - size + 1) if offset == _DYNAMIC else b.index(offset)
            for offset, size, whole in zip(offsets, sizes, source.shape, strict=True)
        ]
        shape = shape_of(operation.results[0].type)
        if source.fill is not None:
            return Row(shape, source.element, None, source.fill)
        steps = [math.prod(source.shape[n + 1 :]) for n in range(len(sizes))]
        begin: Value = b.index(0)
        for start, step in zip(starts, steps, strict=True):
            begin = begin + start * step
        first = next((n for n, size in enumerate(sizes) if size != 1), len(sizes))
        if list(sizes[first + 1 :]) == list(source.shape[first + 1 :]):
            return Row(shape, source.element, source.address(begin))
        out = self.rows.new(shape, source.element)
        run = sizes[-1]
        for line, places in enumerate(itertools.product(*(range(n) for n in sizes[:-1]))):
            at = begin + sum(place * step for place, step in zip(places, steps, strict=False))
            self._move(source, at, out, line * run, run)
        return out

    def _concat(self, op: Any) -> Row:
        operation = op.operation
        axis = ir.IntegerAttr(operation.attributes["dim"]).value
        out = self.rows.of_type(operation.results[0].type)
        line = math.prod(out.shape[axis:])
        begin = 0
        for operand in operation.operands:
            row = self.row(operand)
            run = math.prod(row.shape[axis:])
            for n in range(row.count // run):
                self._move(row, self.b.index(n * run), out, begin + n * line, run)
            begin += run
        return out

    def _move(self, source: Row, at: Value, target: Row, to: int, count: int) -> None:
        """Copies `count` elements, in vectors with a masked last one."""
        b, lanes = self.b, self.rows.lanes
        for index in range(0, count, lanes):
            target.store(b, b.index(to + index), source.load(b, at + index, lanes), min(lanes, count - index))

    def _top_k(self, op: Any) -> Row:
        return rowchoice.top_k(self.rows, op, self.row(op.operation.operands[0]))

    def _top_p(self, op: Any) -> Row:
        return rowchoice.top_p(self.rows, op, self.row(op.operation.operands[0]))

    def _take(self, op: Any) -> Row:
        values, index = (self.row(operand) for operand in op.operation.operands)
        return rowchoice.take(self.rows, op, values, index, self.range_error)

    def _chosen(self, op: Any) -> Row:
        return rowchoice.chosen(self.rows, op, self.row(op.operation.operands[0]))

    def _put(self, op: Any) -> Row:
        values, index = (self.row(operand) for operand in op.operation.operands)
        return rowchoice.put(self.rows, op, values, index)

    def _constant_step(self, op: Any) -> Row | Value:
        return self._constant(op.operation)


_MEANING: dict[str, Callable[[Program, Any], Row | Value]] = {
    "arith.constant": Program._constant_step,
    "tensor.empty": Program._empty,
    "tensor.splat": Program._splat,
    "tensor.expand_shape": Program._reshape,
    "tensor.collapse_shape": Program._reshape,
    "tensor.extract": Program._extract,
    "tensor.extract_slice": Program._extract_slice,
    "tensor.concat": Program._concat,
    "moe.row": Program._token_row,
    "moe.top_k": Program._top_k,
    "moe.top_p": Program._top_p,
    "moe.take": Program._take,
    "moe.chosen": Program._chosen,
    "moe.put": Program._put,
}
