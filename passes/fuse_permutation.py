"""Token permutation fusion: dispatch becomes the gather of a grouped matmul's rows, combine its epilogue.

No permuted copy of the tokens exists then, neither going in nor coming out.  At very few tokens the slots are not even
sorted over all experts.  The cost model (cost.py) says when, and the remarks say why.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch_mlir import ir

from moec.dialect import CombineOp, DispatchOp, ElementOp, GroupedMatmulCombineOp, GroupedMatmulOp, PlanOp
from moec.passes import cost
from moec.passes.base import Pass, Remarks
from moec.passes.finish import absorb_finish
from moec.passes.rewriting import (
    body,
    defining,
    dims,
    element_type,
    fill_region,
    flag,
    inline,
    integer,
    operations,
    users,
    yield_value,
)

EXPLAINED = (1, 16, 512)


@dataclass(frozen=True)
class FusePermutation(Pass):
    """Replaces `moe.dispatch` by `moe.plan` and `moe.combine` by `moe.grouped_matmul_combine`.

    `direct_max_tokens` >= 0 overrides what the cost model says: the most tokens whose slots are inserted one by one.
    Gathering moves fewer bytes than copying at any T, so a dispatch stays only where something else reads its rows.
    """

    direct_max_tokens: int = -1
    name: ClassVar[str] = "fuse-permutation"

    def apply(self, module: ir.Module, remarks: Remarks) -> None:
        for dispatch in operations(body(module), "moe.dispatch"):
            self.fuse(dispatch, remarks)
        for combine in operations(body(module), "moe.combine"):
            fused = fuse_combine(combine)
            if fused is None:
                remarks.add(self, "the rows to combine come from no single matmul: kept", combine.location)
                continue
            remarks.add(self, "combine became the epilogue of the last matmul", fused.location)
        for last in operations(body(module), "moe.grouped_matmul_combine", "moe.collect"):
            absorb_finish(last)

    def fuse(self, dispatch: DispatchOp, remarks: Remarks) -> None:
        machine, traffic = cost.Machine(), measure(dispatch)
        why = "; ".join(cost.explain(traffic, machine, tokens) for tokens in EXPLAINED)
        if not gathers(dispatch):
            remarks.add(self, "the copied rows are used by more than matmuls: kept", dispatch.location)
        else:
            most = self.direct_max_tokens
            most = cost.direct_max_tokens(traffic, machine) if most < 0 else most
            remarks.add(self, f"rows are gathered; slots are inserted up to {most} tokens: {why}", dispatch.location)
            fuse_dispatch(dispatch, most)


def measure(dispatch: DispatchOp) -> cost.Traffic:
    """What the experts behind a dispatch move."""
    matmuls = [op for op in dispatch.operation.parent.regions[0].blocks[0].operations
               if isinstance(op, GroupedMatmulOp) and op.slots == dispatch.slots]  # fmt: skip
    width = {"f32": 4, "bf16": 2, "f16": 2}
    row_in = dims(dispatch.x)[1] * width.get(str(element_type(dispatch.x)), 4)
    row_out = dims(matmuls[-1].out)[1] * 4 if matmuls else row_in
    return cost.Traffic(ir.IntegerAttr(dispatch.experts).value, dims(dispatch.index)[1], row_in, row_out)


def readers(rows: ir.Value) -> list[ir.Operation]:
    """What reads permuted rows, or the int8 made of them."""
    found = []
    for user in users(rows):
        found += readers(user.results[0]) if user.name == "moe.quantize_rows" else [user]
    return found


def gathers(dispatch: DispatchOp) -> bool:
    """Whether only matmuls and their epilogues use the permuted rows."""
    return all(user.name in ("moe.grouped_matmul", "moe.element") for user in readers(dispatch.rows))


def fuse_dispatch(dispatch: DispatchOp, direct: int) -> None:
    with ir.InsertionPoint(dispatch), dispatch.location:
        plan = PlanOp(dispatch.index, dispatch.experts, integer(direct), dispatch.offsets.type, dispatch.slots.type)
        for user in readers(dispatch.rows):
            if user.name == "moe.element":
                kind = ir.StringAttr(user.attributes["kind"]).value
                user.attributes["kind"] = ir.StringAttr.get({"row": "token", "scalar": "token_scalar"}[kind])
            else:
                user.attributes["gather"] = flag(True)
    dispatch.rows.replace_all_uses_with(dispatch.x)
    dispatch.offsets.replace_all_uses_with(plan.offsets)
    dispatch.slots.replace_all_uses_with(plan.slots)
    dispatch.operation.erase()


def fuse_combine(combine: CombineOp) -> GroupedMatmulCombineOp | None:
    producer = defining(combine.rows)
    matmul = producer.opview if producer is not None else None
    if not isinstance(matmul, GroupedMatmulOp) or matmul.transposed or len(users(combine.rows)) != 1:
        return None
    if len(matmul.operation.results) != 1:
        return None
    f32 = ir.F32Type.get(combine.context)
    with ir.InsertionPoint(combine), combine.location:
        fused = GroupedMatmulCombineOp(
            matmul.lhs, combine.weight, matmul.offsets, matmul.slots, list(matmul.weights),
            flag(matmul.gather), matmul.slots_per_token, combine.out.type,
        )  # fmt: skip
    old = matmul.epilogue.blocks[0]
    block = fill_region(fused.epilogue, [a.type for a in old.arguments])
    with ir.InsertionPoint(block), combine.location:
        (value,) = inline(old, list(block.arguments))
        weight = ElementOp(combine.weight, ir.StringAttr.get("slot"), f32).element
        yield_value(ir.Operation.create("arith.mulf", [f32], [value, weight]).result)
    finish = fill_region(fused.finish, [f32])
    with ir.InsertionPoint(finish), combine.location:
        yield_value(finish.arguments[0])
    combine.out.replace_all_uses_with(fused.out)
    combine.operation.erase()
    matmul.operation.erase()
    return fused
