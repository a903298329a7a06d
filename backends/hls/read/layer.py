"""The chain of a layer's operations: route, dispatch, experts, combine, shared experts."""

from __future__ import annotations

from dataclasses import dataclass

from torch_mlir import ir

from moec.backends.base import Unsupported, unsupported
from moec.backends.hls.read.experts import Experts, read_experts
from moec.backends.hls.read.router import read_router
from moec.backends.hls.read.terms import Terms
from moec.dialect.functions import layer_function
from moec.fixed.interface import Interface
from moec.fixed.limits import reasons
from moec.fixed.spec import Layer

_KNOWN = ("moe.route", "moe.dispatch", "moe.experts", "moe.combine", "moe.shared", "moe.quantize", "moe.dequantize")
_AROUND = ("arith.addf", "arith.truncf", "arith.extf", "tensor.expand_shape", "tensor.collapse_shape", "func.return")


@dataclass(frozen=True)
class Read:
    """A layer in fixed-point arithmetic, and the parameters that its numbers come from."""

    layer: Layer
    interface: Interface


def read(module: ir.Module) -> Read:
    """Of a module at graph level, before shared experts join the routed ones and without losses.

    Raises Unsupported, with the place in the source, for what fixed-point hardware does not have.
    """
    attributes = module.operation.attributes
    function = layer_function(module)
    for name in ("moe.parallel", "moe.policy"):
        if name in attributes:
            raise unsupported(
                "hls", function, "the layer has a layout, and one board runs one layer as it was compiled"
            )
    chain = _chain(function)
    _require_numbers(function)
    terms = Terms()
    _bind(terms, function)
    return _Reader(terms, function, chain).read(str(ir.StringAttr(attributes["moe.layer"]).value))


@dataclass(frozen=True)
class _Chain:
    route: ir.Operation
    experts: ir.Operation
    combine: ir.Operation
    shared: tuple[ir.Operation, ...]


def _chain(function: ir.Operation) -> _Chain:
    """The operations that make a layer, each where hardware has it."""
    operations = [o.operation for o in function.regions[0].blocks[0].operations]
    found = {name: [op for op in operations if op.name == name] for name in _KNOWN}
    for name in ("moe.route", "moe.dispatch", "moe.experts", "moe.combine"):
        if len(found[name]) != 1:
            where = found[name][1] if found[name] else function
            raise unsupported(
                "hls", where, f"there are {len(found[name])} `{name}`; all routed experts have one format"
            )
    for op in operations:
        if op.name == "moe.capacity":
            raise unsupported("hls", op, "every chosen expert is computed; write `tokens dropless`")
        if op.name not in (*_KNOWN, *_AROUND):
            raise unsupported("hls", op, "a layer is a router, its experts, their weighted sum and shared experts")
    route, dispatch, experts, combine = (found[n][0] for n in _KNOWN[:4])
    x = function.regions[0].blocks[0].arguments[0]
    for op in (route, dispatch, *found["moe.shared"]):
        if op.operands[0] != x:
            raise unsupported("hls", op, "the router and all experts read the layer's first input as it is")
    straight = (
        list(dispatch.operands)[1] == route.results[0]
        and list(experts.operands)[:2] == list(dispatch.results)[:2]
        and list(combine.operands) == [experts.results[0], dispatch.results[2], route.results[1]]
    )
    if not straight:
        raise unsupported(
            "hls", combine, "the routed experts' results are combined in another way than they were chosen"
        )
    return _Chain(route, experts, combine, tuple(found["moe.shared"]))


def _require_numbers(function: ir.Operation) -> None:
    """What is read and given is none of f16, which neither weight files nor streams have here."""
    for value, given in zip(function.regions[0].blocks[0].arguments, function.attributes["arg_attrs"], strict=True):
        if isinstance(ir.RankedTensorType(value.type).element_type, ir.F16Type):
            name = str(ir.StringAttr(given["moe.name"]).value)
            raise unsupported("hls", function, f"`{name}` is f16, and numbers are read as f32 or bf16", "write `bf16`")


def _bind(terms: Terms, function: ir.Operation) -> None:
    """Terms of the function's arguments by name, and the shapes of its parameters and buffers."""
    block = function.regions[0].blocks[0]
    for value, given in zip(block.arguments, function.attributes["arg_attrs"], strict=True):
        name, role = (str(ir.StringAttr(given[key]).value) for key in ("moe.name", "moe.role"))
        terms.bind(value, "argument", name)
        if role != "input":
            terms.shapes[name] = tuple(ir.RankedTensorType(value.type).shape)


@dataclass(frozen=True)
class _Reader:
    terms: Terms
    function: ir.Operation
    chain: _Chain

    def read(self, name: str) -> Read:
        block = self.function.regions[0].blocks[0]
        self.terms.prepare(block)
        self._require_result()
        count = int(ir.RankedTensorType(self.chain.experts.operands[1].type).shape[0]) - 1
        router = read_router(self.terms, self.chain.route, count)
        routed = read_experts(self.terms, self.chain.experts, count)
        shared = [read_experts(self.terms, op, _count(op)) for op in self.chain.shared]
        self._require_alike(routed, shared)
        layer = Layer(
            name=name,
            width=int(ir.RankedTensorType(block.arguments[0].type).shape[1]),
            experts=count,
            router=router.router,
            routed=routed.shape,
            shared=sum(s.group.count for s in shared),
            common=shared[0].shape if shared else None,
            weights=routed.weights,
        )
        why = reasons(layer)
        if why:
            raise unsupported("hls", self.function, "; ".join(why))
        groups = tuple(s.group for s in shared)
        return Read(layer, Interface(router.task, router.source, router.selection, routed.group, groups))

    def _require_result(self) -> None:
        """The layer gives its result and nothing else, in the dtype of its input."""
        block = self.function.regions[0].blocks[0]
        results = list(list(block.operations)[-1].operation.operands)
        if len(results) != 1:
            raise unsupported("hls", self.function, "the layer gives more than its result")
        self._require_sum(results[0])
        kinds = [str(ir.RankedTensorType(v.type).element_type) for v in (block.arguments[0], results[0])]
        if kinds[0] != kinds[1]:
            raise unsupported("hls", self.function, f"x is {kinds[0]} and the result {kinds[1]}")

    def _require_sum(self, result: ir.Value) -> None:
        """The result is the sum of what the routed experts and all shared ones give, and nothing else."""
        left, found = [result], []
        while left:
            op = left.pop().owner
            operation = op.operation if hasattr(op, "operation") else None
            if operation is not None and operation.name in ("arith.addf", "arith.truncf", "arith.extf"):
                left.extend(operation.operands)
            else:
                found.append(operation)
        expected = [self.chain.combine, *self.chain.shared]
        if len(found) != len(expected) or any(op not in found for op in expected):
            raise unsupported("hls", self.function, "the result is not the sum of routed and shared experts' results")

    def _require_alike(self, routed: Experts, shared: list[Experts]) -> None:
        for one, op in zip(shared, self.chain.shared, strict=True):
            if one.weights is not routed.weights:
                raise self._different(
                    op, f"weights are {one.weights.value}, those of the routed experts {routed.weights.value}"
                )
            if one.shape != shared[0].shape:
                raise self._different(op, "shared experts have one shape, and this is another than the first one's")

    def _different(self, op: ir.Operation, why: str) -> Unsupported:
        return unsupported("hls", op, f"{why}; one array of multipliers computes all experts")


def _count(op: ir.Operation) -> int:
    return int(ir.IntegerAttr(op.attributes["count"]).value)
