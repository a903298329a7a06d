"""Builds single operations on statically shaped tensors, at the current insertion point and location."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
from torch_mlir import ir
from torch_mlir.dialects import arith, linalg, tensor

from moec.diagnostics import Span

Shape = tuple[int, ...]


def location(span: Span, context: ir.Context) -> ir.Location:
    """The place of a span's first character."""
    return ir.Location.file(span.source.name, span.line, span.column, context)


def element_type(name: str) -> ir.Type:
    """The MLIR type of f32, bf16, f16, i32, bool, or of codes of quantised weights."""
    match name:
        case "f32":
            return ir.F32Type.get()
        case "bf16":
            return ir.BF16Type.get()
        case "f16":
            return ir.F16Type.get()
        case "i32":
            return ir.IntegerType.get_signless(32)
        case "i8":
            return ir.IntegerType.get_signless(8)
        case "f8E4M3FN":
            return ir.Float8E4M3FNType.get()
        case "bool":
            return ir.IntegerType.get_signless(1)
    raise ValueError(f"no element type is called {name}")


def tensor_type(shape: Sequence[int | None], element: str) -> ir.RankedTensorType:
    """None is a dynamic dimension."""
    dynamic = ir.ShapedType.get_dynamic_size()
    return ir.RankedTensorType.get([dynamic if n is None else n for n in shape], element_type(element))


def shape_of(value: ir.Value) -> Shape:
    return tuple(ir.RankedTensorType(value.type).shape)


def element_of(value: ir.Value) -> ir.Type:
    return ir.RankedTensorType(value.type).element_type


def splat(number: float | int | bool, shape: Shape, element: str = "f32") -> ir.Value:
    """A constant tensor of one number."""
    type_ = tensor_type(shape, element)
    if element in ("f32", "bf16", "f16"):
        attribute: ir.Attribute = ir.FloatAttr.get(type_.element_type, float(number))
    else:
        attribute = ir.IntegerAttr.get(type_.element_type, int(number))
    return arith.constant(type_, ir.DenseElementsAttr.get_splat(type_, attribute))


def integers(numbers: Sequence[int], shape: Shape) -> ir.Value:
    """A constant i32 tensor."""
    type_ = tensor_type(shape, "i32")
    array = np.array(numbers, np.int32).reshape(shape)
    return arith.constant(type_, ir.DenseElementsAttr.get(array, type=type_.element_type, shape=list(shape)))


def broadcast(value: ir.Value, shape: Shape) -> ir.Value:
    """Stretches axes of 1 and adds leading axes until the value has this shape."""
    have = shape_of(value)
    if have == shape:
        return value
    lead = len(shape) - len(have)
    kept = [i for i, n in enumerate(have) if n == shape[lead + i]]
    if len(kept) < len(have):
        value = reshape(value, tuple(have[i] for i in kept))
    added = [i for i in range(len(shape)) if i - lead not in kept]
    init = tensor.empty(list(shape), element_of(value))
    made = linalg.BroadcastOp([init.type], value, init, added)
    linalg.fill_builtin_region(made.operation)
    return made.results[0]


def reshape(value: ir.Value, shape: Shape) -> ir.Value:
    """The same elements in row-major order under another shape, by way of one axis where neither is finer."""
    have = shape_of(value)
    if have == shape:
        return value
    type_ = ir.RankedTensorType.get(list(shape), element_of(value))
    if len(shape) > len(have) and (groups := _groups(shape, have)) is not None:
        return tensor.expand_shape(type_, value, groups, [], list(shape))
    if len(shape) < len(have) and (groups := _groups(have, shape)) is not None:
        return tensor.collapse_shape(type_, value, groups)
    return reshape(reshape(value, (prod(have),)), shape)


def _groups(fine: Shape, coarse: Shape) -> list[list[int]] | None:
    """Which axes of `fine` make each axis of `coarse`; None if they do not."""
    if not coarse:
        return [] if prod(fine) == 1 else None
    groups: list[list[int]] = []
    at = 0
    for n in coarse:
        group: list[int] = []
        size = 1
        while at < len(fine) and (size < n or not group):
            size *= fine[at]
            group.append(at)
            at += 1
        if size != n or not group:
            return None
        groups.append(group)
    while at < len(fine) and fine[at] == 1:
        groups[-1].append(at)
        at += 1
    return groups if at == len(fine) else None


def reduce(value: ir.Value, kind: str) -> ir.Value:
    """Along the last axis: "add", "max" or "min"."""
    *lead, _ = shape_of(value)
    combine, start = {
        "add": (arith.addf, 0.0),
        "max": (arith.maximumf, float("-inf")),
        "min": (arith.minimumf, float("inf")),
    }[kind]
    init = splat(start, tuple(lead))
    made = linalg.ReduceOp([init.type], [value], [init], [len(lead)])
    f32 = ir.F32Type.get()
    with ir.InsertionPoint(made.regions[0].blocks.append(f32, f32)):
        a, b = made.regions[0].blocks[0].arguments
        linalg.YieldOp([combine(a, b)])
    return made.results[0]


def matvec(matrix: ir.Value, vector: ir.Value) -> ir.Value:
    """[n, m] times [m], accumulated in f32."""
    return linalg.matvec(matrix, vector, outs=[splat(0.0, shape_of(matrix)[:1])])


def cast(value: ir.Value, element: str) -> ir.Value:
    """To f32, or from it."""
    have, want = str(element_of(value)), element
    if have == want:
        return value
    type_ = tensor_type(shape_of(value), element)
    return arith.extf(type_, value) if want == "f32" else arith.truncf(type_, value)
