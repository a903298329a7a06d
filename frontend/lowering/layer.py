"""A checked layer to a module: route, capacity, dispatch, experts, combine, shared."""

from __future__ import annotations

from collections.abc import Mapping

from torch_mlir import ir
from torch_mlir.dialects import arith, func

from moec.artifact.parallel import parallel_data
from moec.artifact.policy import policy_data
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
from moec.dialect.functions import POLICY, Routed
from moec.dialect.json_attributes import to_attribute
from moec.dialect.subsets import renumber
from moec.frontend.graph import DType, Node, PickType, TensorType
from moec.frontend.lowering import emit, losses, stored
from moec.frontend.lowering.rows import Row
from moec.frontend.model import Capacity, Experts, Layer, Subset


def lower_layer(layer: Layer, context: ir.Context) -> ir.Module:
    """The verified module of a layer."""
    with context, emit.location(layer.span, context):
        module = ir.Module.create()
        module.operation.attributes["moe.layer"] = ir.StringAttr.get(layer.name)
        module.operation.attributes["moe.routed"] = Routed(layer.routed.name, layer.routed.count).attribute
        if layer.losses:
            module.operation.attributes["moe.losses"] = losses.attribute(layer.losses)
        if layer.layout:
            module.operation.attributes[POLICY] = to_attribute(policy_data(layer.layout.policy))
        if layer.layout and layer.layout.parallel:
            module.operation.attributes["moe.parallel"] = to_attribute(parallel_data(layer.layout.parallel))
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
        loss_tensors = losses.types(layer)
        result = [emit.tensor_type(one.shape, one.dtype.value) for one in layer.outputs]
        result += [type_ for _, type_ in loss_tensors]
        function = func.FuncOp(layer.name, ir.FunctionType.get(types, result))
        function.arg_attrs = ir.ArrayAttr.get([_named(one.name, one.role) for one in given])
        named = [*((one.name, None) for one in layer.outputs), *((name, "loss") for name, _ in loss_tensors)]
        function.res_attrs = ir.ArrayAttr.get([_named(name, role) for name, role in named])
        with ir.InsertionPoint(function.add_entry_block()):
            names = [one.name for one in given]
            self._arguments = dict(zip(names, function.arguments, strict=True))
            func.ReturnOp(self._results())

    def _results(self) -> list[ir.Value]:
        """The layer's output, then what its losses are computed from."""
        x = self._arguments["x"]
        index, weight = self._route(x)
        y = self._body(x, index, weight)
        return [y, *losses.values(self._layer, x, index, self._router_leaf, self._context)]

    def _body(self, x: ir.Value, index: ir.Value, weight: ir.Value) -> ir.Value:
        layer = self._layer
        count = layer.routed.count
        with emit.location(layer.routed.span, self._context):
            if layer.tokens is not None:
                index = self._capacity(index, weight, count, layer.tokens)
            y = self._routed(layer.routed, x, index, weight)
        out_type = emit.tensor_type((None, layer.width), "f32")
        for group in layer.shared:
            with emit.location(group.span, self._context):
                own = stored.parameters(group, _whole(group), self._arguments)
                shared = SharedOp(x, _i64(group.count), out_type)
                self._expert(group, own, shared.operation.regions[0])
                y = arith.addf(y, shared.out)
        if layer.dtype is DType.F32:
            return y
        return arith.truncf(emit.tensor_type((None, layer.width), layer.dtype.value), y)

    def _routed(self, group: Experts, x: ir.Value, index: ir.Value, weight: ir.Value) -> ir.Value:
        """The weighted sum of the routed experts; those of one format are dispatched together."""
        out_type = emit.tensor_type((None, self._layer.width), "f32")
        sums = []
        for subset in group.subsets or (_whole(group),):
            count = len(subset.numbers)
            own = stored.parameters(group, subset, self._arguments)
            mine = index if count == group.count else renumber(index, weight, subset.numbers, group.count)
            types = (x.type, emit.tensor_type((count + 1,), "i32"), emit.tensor_type((None,), "i32"))
            dispatched = DispatchOp(x, mine, _i64(count), *types)
            rows = ExpertsOp(dispatched.rows, dispatched.offsets, out_type)
            self._expert(group, own, rows.operation.regions[0])
            sums.append(CombineOp(rows.out, dispatched.slots, weight, out_type).out)
        total = sums[0]
        for one in sums[1:]:
            total = arith.addf(total, one)
        return total

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

    def _expert(self, group: Experts, own: Mapping[str, ir.Value], region: ir.Region) -> None:
        def leaf(node: Node) -> ir.Value:
            return _sliced(OwnOp, own[str(node.attributes[0])])

        dequantised = {name for name in group.linears if _is_dequantised(own[name])}
        int8 = frozenset(dequantised if self._layer.int8_rows else ())
        block = region.blocks.append(_row_type(self._arguments["x"]))
        with ir.InsertionPoint(block):
            row = Row(block.arguments[0], leaf, group.dtype, self._context, int8)
            row.lower([group.output])
            YieldOp([row.values[group.output]])


def _whole(group: Experts) -> Subset:
    return Subset(tuple(range(group.count)), group.format)


def _is_dequantised(value: ir.Value) -> bool:
    return not isinstance(value, ir.BlockArgument) and value.owner.operation.name == "moe.dequantize"


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
