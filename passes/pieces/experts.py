"""The piece of a layer that runs where experts are."""

from dataclasses import replace

from torch_mlir import ir

from moec.dialect import CombineOp, DispatchOp, ExpertsOp, TakeRowsOp
from moec.dialect.functions import Routed
from moec.passes.pieces.draft import Argument, Draft, Result, used
from moec.passes.pieces.parts import Parts
from moec.passes.pieces.resize import Resizing, captured, fill
from moec.passes.rewriting import integer

DYNAMIC = ir.ShapedType.get_dynamic_size


def experts(parts: Parts, slots: int) -> ir.Module:
    """Rows of tokens to the weighted rows of the experts in `slots` slots.

    Inputs: `rows` [P, d], `source` [P, 1] i32, `slot` [P, 1] i32, `weight` [P, 1] f32; output `out` [P, N] f32:
    out[p] = weight[p] * expert_slot[p](rows[source[p]]), zeros where slot[p] is negative.  The routed experts'
    parameters have a leading axis of `slots`; where their hidden dimension is cut, out is one of the parts that add up.
    """
    i32, f32 = ir.IntegerType.get_signless(32), ir.F32Type.get()
    numbers = ir.RankedTensorType.get([DYNAMIC(), 1], i32)
    weights = ir.RankedTensorType.get([DYNAMIC(), 1], f32)
    dispatch = parts.dispatch
    given = [
        Argument("rows", dispatch.x.type, "input"),
        Argument("source", numbers, "input"),
        Argument("slot", numbers, "input"),
        Argument("weight", weights, "input"),
    ]
    held = [
        replace(a, type=parts.held(a.stands, slots))
        for a in used(parts, [parts.experts.out], [dispatch.rows, dispatch.offsets], [parts.group.name])
    ]
    draft = Draft(parts, "experts", [*given, *held])
    draft.module.operation.attributes["moe.routed"] = Routed(parts.group.name, slots).attribute
    rows, source, slot, weight = (draft.arguments[a.name] for a in given)
    with ir.InsertionPoint(draft.block), parts.experts.location:
        program = parts.experts.body.blocks[0]
        known = captured(draft, program, Resizing(draft.take))
        taken = TakeRowsOp(rows, source, rows.type).out
        ends = ir.RankedTensorType.get([slots + 1], i32)
        sent = DispatchOp(taken, slot, integer(slots), taken.type, ends, dispatch.slots.type)
        made = ExpertsOp(sent.rows, sent.offsets, parts.experts.out.type)
        fill(made.body, program, known, *parts.hidden(program))
        out = CombineOp(made.out, sent.slots, weight, parts.combine.out.type).out
    return draft.finish([Result("out", out, element=parts.result_element, taken="source")])
