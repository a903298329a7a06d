"""What auxiliary losses are computed from, for every token: further results of a layer's function."""

from __future__ import annotations

from collections.abc import Callable

from torch_mlir import ir
from torch_mlir.dialects import arith

from moec.dialect import CountOp, MapOp, RowOp, YieldOp
from moec.frontend.graph import DType, Node
from moec.frontend.lowering import emit, formulas
from moec.frontend.lowering.rows import Row
from moec.frontend.model import Layer, Loss

Leaf = Callable[[Node], ir.Value]


def attribute(losses: tuple[Loss, ...]) -> ir.ArrayAttr:
    """The losses as the module's attribute `moe.losses`."""
    f64 = ir.F64Type.get()
    return ir.ArrayAttr.get(
        [
            ir.DictAttr.get(
                {
                    "kind": ir.StringAttr.get(one.kind),
                    "weight": ir.FloatAttr.get(f64, one.weight),
                    "over": ir.StringAttr.get(one.over),
                }
            )
            for one in losses
        ]
    )


def types(layer: Layer) -> list[tuple[str, ir.Type]]:
    """Names and types of the loss tensors of a layer."""
    count = layer.routed.count
    found: list[tuple[str, ir.Type]] = []
    for loss in layer.losses:
        if loss.kind == "balance":
            found.append(("probability", emit.tensor_type((None, count), "f32")))
            found.append(("count", emit.tensor_type((count,), "i32")))
        else:
            found.append(("z", emit.tensor_type((None, 1), "f32")))
    return found


def values(layer: Layer, x: ir.Value, index: ir.Value, leaf: Leaf, context: ir.Context) -> list[ir.Value]:
    """The loss tensors, at the insertion point.  `index` is what the router chose, `leaf` gives its parameters."""
    found: list[ir.Value] = []
    for loss in layer.losses:
        with emit.location(loss.span, context):
            if loss.kind == "balance":
                found.append(_map(layer.router.probability, x, leaf, context, lambda value: value))
                found.append(CountOp(index, emit.tensor_type((layer.routed.count,), "i32")).out)
            else:
                found.append(_map(layer.router.logits, x, leaf, context, _squared_log_sum))
    return found


def _map(
    node: Node | None, x: ir.Value, leaf: Leaf, context: ir.Context, then: Callable[[ir.Value], ir.Value]
) -> ir.Value:
    """A value of the router for every token, tensor<?xN>."""
    assert node is not None
    width = 1 if then is _squared_log_sum else node.type.shape[0]
    made = MapOp(x, emit.tensor_type((None, width), "f32"))
    with ir.InsertionPoint(made.operation.regions[0].blocks.append()):
        type_ = ir.RankedTensorType(x.type)
        token = RowOp(x, ir.RankedTensorType.get(list(type_.shape)[1:], type_.element_type)).row
        row = Row(token, leaf, DType.F32, context)
        row.lower([node])
        YieldOp([then(row.values[node])])
    return made.out


def _squared_log_sum(logits: ir.Value) -> ir.Value:
    """log(sum(exp(v)))², as tensor<1>; ST-MoE (arXiv:2202.08906)."""
    largest = emit.reduce(logits, "max")
    shifted = arith.subf(logits, emit.broadcast(largest, emit.shape_of(logits)))
    total = emit.reduce(formulas.unary("exp", shifted), "add")
    log_sum = arith.addf(formulas.unary("log", total), largest)
    return emit.reshape(arith.mulf(log_sum, log_sum), (1,))
