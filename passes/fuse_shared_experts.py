"""Shared experts join the routed ones: a shared expert is one that every token chooses, with weight 1."""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch_mlir import ir

from moec.dialect import (
    CombineOp,
    DequantizeOp,
    DispatchOp,
    ExpertsOp,
    QuantizeOp,
    RouteOp,
    RowOp,
    SharedOp,
    YieldChoiceOp,
)
from moec.passes.base import Pass, Remarks
from moec.passes.rewriting import (
    body,
    clone,
    concat,
    constant,
    defining,
    dims,
    element_type,
    fill_region,
    inline,
    integer,
    operations,
    row_type,
    terminator,
    users,
    yield_value,
)
from moec.passes.same_program import own_parameters, same_program, stored

DYNAMIC = ir.ShapedType.get_dynamic_size


@dataclass(frozen=True)
class FuseSharedExperts(Pass):
    """Gets rid of `moe.shared`.

    Where the shared experts compute the same program as the routed ones, on tensors of the same sizes, they become
    further experts of the same dispatch: one launch, no second pass over the tokens.  Otherwise, and with `join` false,
    they get a constant routing of their own.
    """

    join: bool = True
    name: ClassVar[str] = "fuse-shared-experts"

    def apply(self, module: ir.Module, remarks: Remarks) -> None:
        for shared in operations(body(module), "moe.shared"):
            routed = routed_twin(shared, module) if self.join else None
            if routed is None:
                why = "differ from" if self.join else "stay apart from"
                remarks.add(self, f"shared experts {why} the routed ones: routed on their own", shared.location)
                route_constantly(shared)
            else:
                remarks.add(self, "shared experts joined the routed ones", shared.location)
                join(shared, routed)


@dataclass(frozen=True)
class Routed:
    """The chain of operations of a layer's routed experts, and the addition that brings in the shared ones."""

    dispatch: DispatchOp
    experts: ExpertsOp
    combine: CombineOp
    addition: ir.Operation


def routed_twin(shared: SharedOp, module: ir.Module) -> Routed | None:
    """The routed experts that `shared` can join."""
    uses = [use.owner.operation for use in shared.out.uses]
    if len(uses) != 1 or uses[0].name != "arith.addf":
        return None
    for experts in operations(body(module), "moe.experts"):
        dispatch = defining(experts.rows)
        combines = [use.owner.operation for use in experts.out.uses]
        if dispatch is None or dispatch.name != "moe.dispatch" or [c.name for c in combines] != ["moe.combine"]:
            continue
        added = [v for v in uses[0].operands if v != shared.out]
        same_x = dispatch.opview.x == shared.x
        if added == [combines[0].result] and same_x and same_program(experts.body.blocks[0], shared.body.blocks[0]):
            return Routed(dispatch.opview, experts, combines[0].opview, uses[0])
    return None


def join(shared: SharedOp, routed: Routed) -> None:
    count = ir.IntegerAttr(shared.count).value
    experts = ir.IntegerAttr(routed.dispatch.experts).value
    with ir.InsertionPoint(routed.dispatch), shared.location:
        index, weight = widen(routed.dispatch.index, routed.combine.weight, experts, count)
    with ir.InsertionPoint(routed.addition), routed.experts.location:
        out = _experts(routed, shared, index, weight, experts + count)
    routed.addition.results[0].replace_all_uses_with(out)
    router = defining(routed.dispatch.index)
    if router is not None:
        count_in(router, index)
    for op in (routed.addition, routed.combine, routed.experts, routed.dispatch, shared):
        op.operation.erase()
    if router is not None and not any(users(result) for result in router.results):
        router.erase()


def count_in(router: ir.Operation, index: ir.Value) -> None:
    """Let counts of a choice read the wider one that takes its place; they leave out the experts beyond theirs."""
    for count in users(router.results[0]):
        if count.name == "moe.count":
            count.operands[0] = index
            count.move_after(index.owner.operation)


def widen(index: ir.Value, weight: ir.Value, experts: int, count: int) -> tuple[ir.Value, ir.Value]:
    """(index, weight) with `count` more slots a token: experts number experts.. with weight 1.

    They grow where they are routed; behind a capacity limit, which shared experts are not subject to, by a routing of
    their own.
    """
    slots = dims(index)[1]
    router = defining(index)
    straight = router is not None and router.name == "moe.route" and defining(weight) == router
    with ir.InsertionPoint(router) if router is not None and straight else nullcontext():
        route = route_op(router.opview.x if router is not None and straight else index, slots + count)
        block = fill_region(route.body, [row_type(route.x)])
        with ir.InsertionPoint(block):
            if router is not None and straight:
                mine = inline(router.regions[0].blocks[0], list(block.arguments))
            else:
                mine = [block.arguments[0], RowOp(weight, row_type(weight)).row]
            more = [constant(np.arange(experts, experts + count, dtype=np.int32)), constant(np.ones(count, np.float32))]
            YieldChoiceOp(*(concat(a, b) for a, b in zip(mine, more, strict=True)))
    return route.index, route.weight


def route_op(x: ir.Value, slots: int) -> RouteOp:
    """A `moe.route` of x with `slots` slots a token, its region still empty."""
    i32, f32 = ir.IntegerType.get_signless(32), ir.F32Type.get()
    return RouteOp(x, *(ir.RankedTensorType.get([DYNAMIC(), slots], t) for t in (i32, f32)))


def _experts(routed: Routed, shared: SharedOp, index: ir.Value, weight: ir.Value, count: int) -> ir.Value:
    """The dispatch, experts and combine of all experts; returns the combined tokens."""
    i32 = ir.IntegerType.get_signless(32)
    dispatch = DispatchOp(
        routed.dispatch.x,
        index,
        integer(count),
        routed.dispatch.rows.type,
        ir.RankedTensorType.get([count + 1], i32),
        routed.dispatch.slots.type,
    )
    old = routed.experts.body.blocks[0]
    pairs = zip(own_parameters(old), own_parameters(shared.body.blocks[0]), strict=True)
    both = {mine: stack(mine, theirs) for mine, theirs in pairs}
    experts = ExpertsOp(dispatch.rows, dispatch.offsets, routed.experts.out.type)
    block = fill_region(experts.body, [a.type for a in old.arguments])
    with ir.InsertionPoint(block):
        known: dict[ir.Value, ir.Value] = {**dict(zip(old.arguments, block.arguments, strict=True)), **both}
        end = terminator(old)
        for op in old.operations:
            if op.operation != end:
                clone(op.operation, known)
        yield_value(known.get(end.operands[0], end.operands[0]))
    return CombineOp(experts.out, dispatch.slots, weight, routed.combine.out.type).out


def stack(first: ir.Value, second: ir.Value) -> ir.Value:
    """The experts of two parameters; the codes and scales of quantised ones, so that packing finds them."""
    how, given = stored(first)
    if how is None:
        return concat(first, second)
    ours, theirs = (value.owner.operation for value in (first, second))
    name = ours.attributes["format"]
    if given:
        codes, scales = (concat(a, b) for a, b in zip(ours.operands, theirs.operands, strict=True))
    else:
        both = concat(*(op.operands[0].owner.operation.operands[0] for op in (ours, theirs)))
        shapes = [[dims(both)[0], *dims(value)[1:]] for value in ours.operands]
        types = [ir.RankedTensorType.get(s, element_type(v)) for s, v in zip(shapes, ours.operands, strict=True)]
        made = QuantizeOp(both, name, *types)
        codes, scales = made.codes, made.scales
    weights = ir.RankedTensorType.get(dims(codes), element_type(first))
    return DequantizeOp(codes, scales, name, weights).weights


def route_constantly(shared: SharedOp) -> None:
    """Replace shared experts by routed ones that every token chooses."""
    count = ir.IntegerAttr(shared.count).value
    i32 = ir.IntegerType.get_signless(32, shared.context)
    with ir.InsertionPoint(shared), shared.location:
        route = route_op(shared.x, count)
        row = row_type(shared.x)
        with ir.InsertionPoint(fill_region(route.body, [row])):
            YieldChoiceOp(constant(np.arange(count, dtype=np.int32)), constant(np.ones(count, np.float32)))
        dispatch = DispatchOp(
            shared.x,
            route.index,
            integer(count),
            shared.x.type,
            ir.RankedTensorType.get([count + 1], i32),
            ir.RankedTensorType.get([DYNAMIC()], i32),
        )
        experts = ExpertsOp(dispatch.rows, dispatch.offsets, shared.out.type)
        block = fill_region(experts.body, [row])
        with ir.InsertionPoint(block):
            yield_value(inline(shared.body.blocks[0], list(block.arguments))[0])
        combined = CombineOp(experts.out, dispatch.slots, route.weight, shared.out.type).out
    shared.out.replace_all_uses_with(combined)
    shared.operation.erase()
