"""What `tensor`, `linalg` and `arith.constant` operations compute, with or without a batch axis in front."""

import numpy as np
from torch_mlir import ir

from moec.oracle.scalars import REDUCTIONS
from moec.oracle.scope import Array, CannotInterpret, Meaning, Scope, element_type


def _constant(op: ir.Operation, inputs: list[Array], scope: Scope) -> list[Array]:
    value = op.attributes["value"]
    type_ = op.results[0].type
    name = str(element_type(type_))
    # a mask's `true` is -1 as an integer, so masks are bool
    kind = np.float64 if name in ("f64", "f32", "f16", "bf16") else np.bool_ if name == "i1" else np.int64
    if not isinstance(type_, ir.ShapedType):
        return [np.asarray(ir.FloatAttr(value).value if kind is np.float64 else ir.IntegerAttr(value).value, kind)]
    dense = ir.DenseElementsAttr(value)
    if dense.is_splat:
        one = dense.get_splat_value()
        plain = ir.FloatAttr(one).value if kind is np.float64 else ir.IntegerAttr(one).value
        return [np.full(type_.shape, plain, kind)]
    return [np.array(dense).astype(kind)]


def _empty(op: ir.Operation, inputs: list[Array], scope: Scope) -> list[Array]:
    return [np.zeros([max(n, 0) for n in op.results[0].type.shape])]


def _splat(op: ir.Operation, inputs: list[Array], scope: Scope) -> list[Array]:
    shape = op.results[0].type.shape
    return [np.broadcast_to(inputs[0].reshape(inputs[0].shape + (1,) * len(shape)), (*inputs[0].shape, *shape))]


def _reshape(op: ir.Operation, inputs: list[Array], scope: Scope) -> list[Array]:
    batch = inputs[0].shape[: scope.lift(op.operands[0])]
    type_ = op.results[0].type
    shape = [-1 if type_.is_dynamic_dim(i) else type_.get_dim_size(i) for i in range(type_.rank)]
    return [inputs[0].reshape((*batch, *shape))]


def _static(op: ir.Operation, name: str) -> list[int]:
    return list(ir.DenseI64ArrayAttr(op.attributes[name]))


_DYNAMIC = -(2**63)


def _extract_slice(op: ir.Operation, inputs: list[Array], scope: Scope) -> list[Array]:
    if any(n == _DYNAMIC for name in ("static_sizes", "static_strides") for n in _static(op, name)):
        raise CannotInterpret(f"tensor.extract_slice with dynamic sizes at {op.location}")
    source, dynamic = inputs[0], list(inputs[1:])
    lift = scope.lift(op.operands[0])
    batch = max([source.shape[0]] if lift else [0, *(a.shape[0] for a in dynamic if a.ndim)])
    offsets = [dynamic.pop(0) if n == _DYNAMIC else np.asarray(n) for n in _static(op, "static_offsets")]
    sizes, strides = _static(op, "static_sizes"), _static(op, "static_strides")

    def cut(whole: Array, starts: list[int]) -> Array:
        for start, size, n in zip(starts, sizes, whole.shape, strict=True):
            if not 0 <= start <= n - size:
                raise IndexError(f"slice {start}:{start + size} of an axis of {n}")
        return whole[tuple(slice(a, a + n * s, s) for a, n, s in zip(starts, sizes, strides, strict=True))]

    shape = op.results[0].type.shape
    if not lift and not any(a.ndim for a in offsets):
        return [cut(source, [int(a) for a in offsets]).reshape(shape)]
    rows = [
        cut(source[i] if lift else source, [int(a[i] if a.ndim else a) for a in offsets]).reshape(shape)
        for i in range(batch)
    ]
    return [np.stack(rows) if rows else np.zeros((0, *shape))]


def _extract(op: ir.Operation, inputs: list[Array], scope: Scope) -> list[Array]:
    source, index = inputs[0], inputs[1:]
    if scope.lift(op.operands[0]):
        return [source[(np.arange(len(source)), *index)]]
    return [source[tuple(index)]]


def _concat(op: ir.Operation, inputs: list[Array], scope: Scope) -> list[Array]:
    axis = ir.IntegerAttr(op.attributes["dim"]).value - op.results[0].type.rank
    lifts = [scope.lift(v) for v in op.operands]
    batch = max((a.shape[0] for a, lift in zip(inputs, lifts, strict=True) if lift), default=None)
    if batch is not None:
        inputs = [a if lift else np.broadcast_to(a, (batch, *a.shape)) for a, lift in zip(inputs, lifts, strict=True)]
    return [np.concatenate(inputs, axis)]


def _fill(op: ir.Operation, inputs: list[Array], scope: Scope) -> list[Array]:
    return _splat(op, inputs[:1], scope)


def _matvec(op: ir.Operation, inputs: list[Array], scope: Scope) -> list[Array]:
    matrix, vector, init = inputs
    if scope.lift(op.operands[0]):
        return [np.einsum("bnk,...k->bn", matrix, vector) + init]
    return [vector @ matrix.T + init]


def _reduce(op: ir.Operation, inputs: list[Array], scope: Scope) -> list[Array]:
    axes = tuple(n + scope.lift(op.operands[0]) for n in _static(op, "dimensions"))
    body = [inner.operation for inner in op.regions[0].blocks[0].operations]
    if len(inputs) != 2 or len(body) != 2 or body[0].name not in REDUCTIONS:
        raise CannotInterpret(f"this linalg.reduce at {op.location}")
    reduced = REDUCTIONS[body[0].name](inputs[0], axis=axes)
    return scope.run(op.regions[0].blocks[0], [reduced, inputs[1]])


def _broadcast(op: ir.Operation, inputs: list[Array], scope: Scope) -> list[Array]:
    lift = scope.lift(op.operands[0])
    added = tuple(n + lift for n in _static(op, "dimensions"))
    shape = (*inputs[0].shape[:lift], *op.results[0].type.shape)
    return [np.broadcast_to(np.expand_dims(inputs[0], added), shape)]


def _transpose(op: ir.Operation, inputs: list[Array], scope: Scope) -> list[Array]:
    lift = scope.lift(op.operands[0])
    return [inputs[0].transpose(*range(lift), *(n + lift for n in _static(op, "permutation")))]


MEANING: dict[str, Meaning] = {
    "arith.constant": _constant,
    "tensor.empty": _empty,
    "tensor.splat": _splat,
    "tensor.expand_shape": _reshape,
    "tensor.collapse_shape": _reshape,
    "tensor.extract_slice": _extract_slice,
    "tensor.extract": _extract,
    "tensor.concat": _concat,
    "linalg.fill": _fill,
    "linalg.matvec": _matvec,
    "linalg.reduce": _reduce,
    "linalg.broadcast": _broadcast,
    "linalg.transpose": _transpose,
}
