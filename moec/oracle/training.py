"""What the operations that training needs compute."""

from itertools import pairwise

import numpy as np
from torch_mlir import ir

from moec.oracle.scope import Array, Meaning, Scope, integer


def _map(op: ir.Operation, inputs: list[Array], scope: Scope) -> list[Array]:
    (like,) = inputs
    (out,) = scope.run(op.regions[0].blocks[0], [], tokens=np.arange(len(like)))
    return [np.broadcast_to(out, (len(like), *op.results[0].type.shape[1:]))]


def _rows(op: ir.Operation, whole: Array, slots: Array, gather: str) -> Array:
    return whole[slots // integer(op, "slots_per_token")] if integer(op, gather) else whole


def _weight_gradient(op: ir.Operation, inputs: list[Array], scope: Scope) -> list[Array]:
    a, b, offsets, slots = inputs
    a, b = _rows(op, a, slots, "gather_a"), _rows(op, b, slots, "gather_b")
    parts = [slice(begin, end) for begin, end in pairwise(offsets)]
    return [np.stack([a[part].T @ b[part] for part in parts])]


def _dense_weight_gradient(op: ir.Operation, inputs: list[Array], scope: Scope) -> list[Array]:
    a, b = inputs
    return [(a.T @ b)[None]]


def _group_sum(op: ir.Operation, inputs: list[Array], scope: Scope) -> list[Array]:
    a, offsets, slots, *factor = inputs
    rows = _rows(op, a, slots, "gather") * (factor[0] if factor else 1)
    return [np.stack([rows[begin:end].sum(0) for begin, end in pairwise(offsets)])]


def _dense_group_sum(op: ir.Operation, inputs: list[Array], scope: Scope) -> list[Array]:
    return [inputs[0].sum(0, keepdims=True)]


def _slot_values(op: ir.Operation, inputs: list[Array], scope: Scope) -> list[Array]:
    rows, slots, tokens = inputs
    out = np.zeros((len(tokens), op.results[0].type.shape[1]))
    out.flat[slots] = rows[:, 0]
    return [out]


def _row_values(op: ir.Operation, inputs: list[Array], scope: Scope) -> list[Array]:
    values, slots = inputs
    return [values.reshape(-1)[slots][:, None]]


def _count(op: ir.Operation, inputs: list[Array], scope: Scope) -> list[Array]:
    (index,) = inputs
    experts = op.results[0].type.shape[0]
    return [np.bincount(index[(index >= 0) & (index < experts)], minlength=experts)]


def _put(op: ir.Operation, inputs: list[Array], scope: Scope) -> list[Array]:
    values, index = inputs
    shape = np.broadcast_shapes(values.shape, index.shape)
    out = np.zeros((*shape[:-1], op.results[0].type.shape[-1]))
    for at in np.ndindex(shape):
        position = np.broadcast_to(index, shape)[at]
        if position >= 0:
            out[(*at[:-1], position)] += np.broadcast_to(values, shape)[at]
    return [out]


MEANING: dict[str, Meaning] = {
    "moe.map": _map,
    "moe.weight_gradient": _weight_gradient,
    "moe.dense_weight_gradient": _dense_weight_gradient,
    "moe.group_sum": _group_sum,
    "moe.dense_group_sum": _dense_group_sum,
    "moe.slot_values": _slot_values,
    "moe.row_values": _row_values,
    "moe.count": _count,
    "moe.put": _put,
}
