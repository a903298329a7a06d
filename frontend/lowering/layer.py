"""A checked layer to a module: route, capacity, dispatch, experts, combine, shared."""

from __future__ import annotations

from collections.abc import Mapping

from torch_mlir import ir
from torch_mlir.dialects import arith, func

from moec.dialect import (
    CapacityOp,
    CombineOp,
    DispatchOp,
    ExpertsOp,
    OwnOp,
    RouteOp,
    RowOp,
    SharedOp,
    TakeOp,
    YieldChoiceOp,
    YieldOp,
)
from moec.frontend.graph import DType, Node, PickType, TensorType
from moec.frontend.lowering import emit
from moec.frontend.lowering.rows import Row
from moec.frontend.model import Capacity, Experts, Layer


def lower_layer(layer: Layer, context: ir.Context) -> ir.Module:
    """The verified module of a layer."""
    with context, emit.location(layer.span, context):
        module = ir.Module.create()
        module.operation.attributes["moe.layer"] = ir.StringAttr.get(layer.name)
        with ir.InsertionPoint(module.body):
            _Lower(layer, context).function()
        module.operation.verify()
    return module


class _Lower:
    def __init__(self, layer: Layer, context: ir.Context) -> None:
        self._layer = layer
        self._context = context
        self._arguments: Mapping[str, ir.Value] = {}

    def function(self) -> None:
        layer = self._layer
        given = (*layer.inputs, *layer.parameters)
        types = [emit.tensor_type(one.shape, one.dtype.value) for one in given]
        result = [emit.tensor_type(one.shape, one.dtype.value) for one in layer.outputs]
        function = func.FuncOp(layer.name, ir.FunctionType.get(types, result))
        function.arg_attrs = ir.ArrayAttr.get([_named(one.name, one.role) for one in given])
        function.res_attrs = ir.ArrayAttr.get([_named(one.name, None) for one in layer.outputs])
        with ir.InsertionPoint(function.add_entry_block()):
            names = [one.name for one in given]
            self._arguments = dict(zip(names, function.arguments, strict=True))
            func.ReturnOp([self._body()])

    def _body(self) -> ir.Value:
        layer = self._layer
        x = self._arguments["x"]
        count = layer.routed.count
        index, weight = self._route(x)
        with emit.location(layer.routed.span, self._context):
            if layer.tokens is not None:
                index = self._capacity(index, weight, count, layer.tokens)
            slots_type = emit.tensor_type((None,), "i32")
            offsets_type = emit.tensor_type((count + 1,), "i32")
            dispatched = DispatchOp(x, index, _i64(count), x.type, offsets_type, slots_type)
            out_type = emit.tensor_type((None, layer.width), "f32")
            rows = ExpertsOp(dispatched.rows, dispatched.offsets, out_type)
            self._expert(layer.routed, rows.operation.regions[0])
            y = CombineOp(rows.out, dispatched.slots, weight, out_type).out
        for group in layer.shared:
            with emit.location(group.span, self._context):
                shared = SharedOp(x, _i64(group.count), out_type)
                self._expert(group, shared.operation.regions[0])
                y = arith.addf(y, shared.out)
        if layer.dtype is DType.F32:
            return y
        return arith.truncf(emit.tensor_type((None, layer.width), layer.dtype.value), y)

    def _route(self, x: ir.Value) -> tuple[ir.Value, ir.Value]:
        router = self._layer.router
        slots = (None, router.slots)
        with emit.location(router.pick.span, self._context):
            route = RouteOp(x, emit.tensor_type(slots, "i32"), emit.tensor_type(slots, "f32"))
        block = route.operation.regions[0].blocks.append(_row_type(x))
        with ir.InsertionPoint(block):
            row = Row(block.arguments[0], self._router_leaf, DType.F32, self._context)
            row.lower([router.pick, router.weight])
            pick = row.values[router.pick]
            with emit.location(router.weight.span, self._context):
                YieldChoiceOp(pick, self._weight(row.values[router.weight], pick))
        return route.index, route.weight

    def _weight(self, weight: ir.Value, pick: ir.Value) -> ir.Value:
        """One weight a slot, 0 where it is empty."""
        type_, given = self._layer.router.pick.type, self._layer.router.weight.type
        assert isinstance(type_, PickType)
        assert isinstance(given, TensorType)
        wide = given.shape in ((type_.over,), (type_.source,))
        if wide and given.slots is None:
            return TakeOp(weight, pick, emit.tensor_type(type_.shape, "f32")).out
        weight = emit.broadcast(weight, type_.shape)
        if not type_.may_be_empty:
            return weight
        occupied = arith.cmpi(5, pick, emit.splat(0, type_.shape, "i32"))
        return arith.select(occupied, weight, emit.splat(0.0, type_.shape))

    def _router_leaf(self, node: Node) -> ir.Value:
        name = str(node.attributes[0])
        if node.op == "parameter":
            return self._arguments[f"router.{name}"]
        return _sliced(RowOp, self._arguments[name])

    def _capacity(self, index: ir.Value, weight: ir.Value, count: int, policy: Capacity) -> ir.Value:
        factor = ir.FloatAttr.get(ir.F64Type.get(), policy.factor)
        order = ir.StringAttr.get(policy.order)
        return CapacityOp(index, weight, _i64(count), factor, _i64(policy.minimum), order, index.type).kept

    def _expert(self, group: Experts, region: ir.Region) -> None:
        def leaf(node: Node) -> ir.Value:
            return _sliced(OwnOp, self._arguments[f"{group.name}.{node.attributes[0]}"])

        block = region.blocks.append(_row_type(self._arguments["x"]))
        with ir.InsertionPoint(block):
            row = Row(block.arguments[0], leaf, group.dtype, self._context)
            row.lower([group.output])
            YieldOp([row.values[group.output]])


def _named(name: str, role: str | None) -> ir.DictAttr:
    attributes = {"moe.name": ir.StringAttr.get(name)}
    if role is not None:
        attributes["moe.role"] = ir.StringAttr.get(role)
    return ir.DictAttr.get(attributes)


def _i64(number: int) -> ir.IntegerAttr:
    return ir.IntegerAttr.get(ir.IntegerType.get_signless(64), number)


def _row_type(whole: ir.Value) -> ir.RankedTensorType:
    type_ = ir.RankedTensorType(whole.type)
    return ir.RankedTensorType.get(list(type_.shape)[1:], type_.element_type)


def _sliced(op: type[RowOp] | type[OwnOp], whole: ir.Value) -> ir.Value:
    return op(whole, _row_type(whole)).results[0]
