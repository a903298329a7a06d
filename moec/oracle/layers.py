"""What graph-level and row-level operations of the `moe` dialect compute."""

import numpy as np
from torch_mlir import ir

from moec.oracle import routing
from moec.oracle.scope import Array, Meaning, Scope, integer


def _route(op: ir.Operation, inputs: list[Array], scope: Scope) -> list[Array]:
    (x,) = inputs
    index, weight = scope.run(op.regions[0].blocks[0], [x], tokens=np.arange(len(x)))
    slots = op.results[0].type.shape[1]
    shape = (len(x), slots)
    return [np.broadcast_to(index, shape).astype(np.int64), np.broadcast_to(weight, shape).astype(np.float64)]


def _capacity(op: ir.Operation, inputs: list[Array], scope: Scope) -> list[Array]:
    factor = ir.FloatAttr(op.attributes["factor"]).value
    order = ir.StringAttr(op.attributes["order"]).value
    index, weight = inputs
    return [routing.capacity(index, weight, integer(op, "experts"), factor, integer(op, "minimum"), order)]


def _dispatch(op: ir.Operation, inputs: list[Array], scope: Scope) -> list[Array]:
    x, index = inputs
    offsets, slots = routing.plan(index, integer(op, "experts"))
    return [x[slots // index.shape[1]], offsets, slots]


def _experts(op: ir.Operation, inputs: list[Array], scope: Scope) -> list[Array]:
    rows, offsets = inputs
    out = np.zeros((len(rows), op.results[0].type.shape[1]))
    for expert in range(len(offsets) - 1):
        mine = slice(offsets[expert], offsets[expert + 1])
        if mine.stop > mine.start:
            out[mine] = scope.run(op.regions[0].blocks[0], [rows[mine]], expert=expert)[0]
    return [out]


def _shared(op: ir.Operation, inputs: list[Array], scope: Scope) -> list[Array]:
    (x,) = inputs
    total = np.zeros((len(x), op.results[0].type.shape[1]))
    for expert in range(integer(op, "count")):
        total = total + scope.run(op.regions[0].blocks[0], [x], expert=expert, tokens=np.arange(len(x)))[0]
    return [total]


def _combine(op: ir.Operation, inputs: list[Array], scope: Scope) -> list[Array]:
    rows, slots, weight = inputs
    total = np.zeros((len(weight), rows.shape[1]))
    if len(rows):
        np.add.at(total, slots // weight.shape[1], weight.ravel()[slots][:, None] * rows)
    return [total]


def _row(op: ir.Operation, inputs: list[Array], scope: Scope) -> list[Array]:
    return [inputs[0][scope.tokens]]


def _own(op: ir.Operation, inputs: list[Array], scope: Scope) -> list[Array]:
    return [inputs[0][scope.expert]]


def _top_k(op: ir.Operation, inputs: list[Array], scope: Scope) -> list[Array]:
    return [routing.top_k(inputs[0], integer(op, "k"))]


def _top_p(op: ir.Operation, inputs: list[Array], scope: Scope) -> list[Array]:
    return [routing.top_p(inputs[0], ir.FloatAttr(op.attributes["mass"]).value, integer(op, "most"))]


def _take(op: ir.Operation, inputs: list[Array], scope: Scope) -> list[Array]:
    return [routing.take(*inputs)]


def _chosen(op: ir.Operation, inputs: list[Array], scope: Scope) -> list[Array]:
    return [routing.chosen(inputs[0], op.results[0].type.shape[-1])]


MEANING: dict[str, Meaning] = {
    "moe.route": _route,
    "moe.capacity": _capacity,
    "moe.dispatch": _dispatch,
    "moe.experts": _experts,
    "moe.shared": _shared,
    "moe.combine": _combine,
    "moe.row": _row,
    "moe.own": _own,
    "moe.top_k": _top_k,
    "moe.top_p": _top_p,
    "moe.take": _take,
    "moe.chosen": _chosen,
}
