"""How gradients go back through what is not elementwise in row programs: a table, as in scalar_rules."""

from collections.abc import Iterable

import numpy as np
from torch_mlir import ir
from torch_mlir.dialects import arith, tensor

from moec.dialect import PutOp
from moec.passes.gradients.formulas import (
    EQUAL,
    broadcast,
    collapse,
    expand,
    gradient_type,
    number,
    shape_of,
    sum_axes,
    where_arriving,
    zeros,
)
from moec.passes.gradients.scalar_rules import Part, Rule
from moec.passes.rewriting import defining

_DYNAMIC = ir.ShapedType.get_dynamic_size


class NoRule(Exception):
    """Why an operation cannot be differentiated."""


def _axes(op: ir.Operation, name: str = "dimensions") -> list[int]:
    return list(ir.DenseI64ArrayAttr(op.attributes[name]))


def _broadcast(op: ir.Operation, d: ir.Value) -> Iterable[Part]:
    return [(op.operands[0], lambda: sum_axes(d, _axes(op)))]


def _reduce(op: ir.Operation, d: ir.Value) -> Iterable[Part]:
    """A sum hands its gradient to all; the largest (smallest) shares it among those that are equal, as torch's amax."""
    value, axes = op.operands[0], _axes(op)
    kinds = [inner.operation.name for inner in op.regions[0].blocks[0].operations][:-1]

    def spread(one: ir.Value) -> ir.Value:
        return broadcast(one, shape_of(value), axes)

    def shared() -> ir.Value:
        same = arith.cmpf(EQUAL, value, spread(op.results[0]))
        ones, none = number(1.0, gradient_type(value)), number(0.0, gradient_type(value))
        count = sum_axes(arith.select(same, ones, none), axes)
        return arith.select(same, spread(where_arriving(d, arith.divf(d, count))), none)

    if kinds == ["arith.addf"]:
        return [(value, lambda: spread(d))]
    if kinds in (["arith.maximumf"], ["arith.minimumf"]):
        return [(value, shared)]
    raise NoRule(f"a reduction by {', '.join(kinds)}")


def _groups(op: ir.Operation) -> list[list[int]]:
    return [[ir.IntegerAttr(i).value for i in ir.ArrayAttr(g)] for g in ir.ArrayAttr(op.attributes["reassociation"])]


def _expand(op: ir.Operation, d: ir.Value) -> Iterable[Part]:
    (before,) = op.operands
    return [(before, lambda: collapse(d, _groups(op), shape_of(before)))]


def _collapse(op: ir.Operation, d: ir.Value) -> Iterable[Part]:
    (before,) = op.operands
    return [(before, lambda: expand(d, _groups(op), shape_of(before)))]


def _concat(op: ir.Operation, d: ir.Value) -> Iterable[Part]:
    axis = ir.IntegerAttr(op.attributes["dim"]).value
    begin = 0
    for value in op.operands:
        yield value, lambda value=value, begin=begin: _cut(d, axis, begin, shape_of(value))  # type: ignore[misc]
        begin += shape_of(value)[axis]


def _cut(whole: ir.Value, axis: int, begin: int, shape: tuple[int, ...]) -> ir.Value:
    rank = len(shape)
    offsets = [begin if i == axis else 0 for i in range(rank)]
    type_ = ir.RankedTensorType.get(list(shape), ir.F32Type.get())
    return tensor.ExtractSliceOp(type_, whole, [], [], [], offsets, list(shape), [1] * rank).result


def _extract_slice(op: ir.Operation, d: ir.Value) -> Iterable[Part]:
    whole = op.operands[0]
    shape, sizes = shape_of(whole), _axes(op, "static_sizes")
    if any(n != 1 for n in _axes(op, "static_strides")):
        raise NoRule("a slice with strides")
    offsets = _axes(op, "static_offsets")

    def padded() -> ir.Value:
        part = _with_axes(d, sizes)
        for axis, (begin, size, n) in enumerate(zip(offsets, sizes, shape, strict=True)):
            if begin == _DYNAMIC():
                part = _placed(part, axis, n, _row_number(op))
            elif size != n:
                before, after = list(shape_of(part)), list(shape_of(part))
                before[axis], after[axis] = begin, n - begin - size
                parts = [
                    *([zeros(before)] if before[axis] else []),
                    part,
                    *([zeros(after)] if after[axis] else []),
                ]
                made = [*shape_of(part)[:axis], n, *shape_of(part)[axis + 1 :]]
                part = tensor.concat(ir.RankedTensorType.get(made, ir.F32Type.get()), axis, parts)
        return part

    return [(whole, padded)]


def _with_axes(d: ir.Value, sizes: list[int]) -> ir.Value:
    """The gradient of a slice with the leading axes of 1 that the slice dropped."""
    shape = shape_of(d)
    dropped = len(sizes) - len(shape)
    if dropped == 0:
        return d
    if sizes != [*([1] * dropped), *shape]:
        raise NoRule("a slice that drops an axis behind others")
    if not shape:
        return expand(d, [], sizes)
    return expand(d, [list(range(dropped + 1)), *([i] for i in range(dropped + 1, len(sizes)))], sizes)


def _row_number(op: ir.Operation) -> ir.Value:
    """The tensor<i32> that a slice's dynamic offset was read from."""
    cast = defining(op.operands[1])
    read = defining(cast.operands[0]) if cast is not None and cast.name == "arith.index_cast" else None
    if read is None or read.name != "tensor.extract" or len(read.operands) != 1:
        raise NoRule("a slice at a computed place")
    return read.operands[0]


def _placed(part: ir.Value, axis: int, n: int, at: ir.Value) -> ir.Value:
    """`part`, 1 long along `axis`, at place `at` of n zeros: a comparison with the places, since `at` is not known."""
    shape = [*shape_of(part)[:axis], n, *shape_of(part)[axis + 1 :]]
    squeezed = [m for i, m in enumerate(shape) if i != axis]
    repeated = broadcast(_squeeze(part, axis, squeezed), shape, [axis])
    places = np.broadcast_to(
        np.arange(n, dtype=np.int32).reshape([n if i == axis else 1 for i in range(len(shape))]), shape
    )
    numbers = ir.DenseElementsAttr.get(np.ascontiguousarray(places))
    here = arith.cmpi(0, arith.constant(numbers.type, numbers), broadcast(at, shape, list(range(len(shape)))))
    return arith.select(here, repeated, zeros(shape))


def _squeeze(part: ir.Value, axis: int, shape: list[int]) -> ir.Value:
    if not shape:
        return collapse(part, [], [])
    if axis == 0:
        return collapse(part, [[0, 1], *([i] for i in range(2, len(shape) + 1))], shape)
    raise NoRule("a slice at a computed place behind the first axis")


def _take(op: ir.Operation, d: ir.Value) -> Iterable[Part]:
    values, index = op.operands
    return [(values, lambda: PutOp(d, index, gradient_type(values)).out)]


RULES: dict[str, Rule] = {
    "linalg.broadcast": _broadcast,
    "linalg.reduce": _reduce,
    "tensor.expand_shape": _expand,
    "tensor.collapse_shape": _collapse,
    "tensor.concat": _concat,
    "tensor.extract_slice": _extract_slice,
    "moe.take": _take,
}
