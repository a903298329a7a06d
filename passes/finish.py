"""What happens to a token's sum after the combine (adding another result, rounding) joins the combine itself."""

from torch_mlir import ir

from moec.dialect import CollectOp, ElementOp, GroupedMatmulCombineOp
from moec.passes.rewriting import dims, element_type, fill_region, flag, inline, users, yield_value
from moec.passes.row_matmuls import scalar_copy

Sum = GroupedMatmulCombineOp | CollectOp
"""What adds up rows for each token and has a finish region."""


def absorb_finish(combine: Sum) -> None:
    """Move the elementwise operations that alone use the result into the finish region, as long as there are any."""
    while (user := _absorbable(combine)) is not None:
        combine = _absorb(combine, user)


def _absorbable(combine: Sum) -> ir.Operation | None:
    """The one user of the result, if it is elementwise and all else it reads is in token order and exists already."""
    used_by = users(combine.out)
    if len({id(user) for user in used_by}) != 1 or not used_by[0].name.startswith(("arith.", "math.")):
        return None
    (user,) = used_by[:1]
    if user.name == "arith.constant" or user.block != combine.operation.block or len(user.results) != 1:
        return None
    others = [v for v in user.operands if v != combine.out]
    fine = all(dims(v) == dims(combine.out) and _exists_before(v, combine) for v in others)
    return user if fine and dims(user.results[0]) == dims(combine.out) else None


def _exists_before(value: ir.Value, op: Sum) -> bool:
    if isinstance(value, ir.BlockArgument):
        return True
    owner = value.owner.operation
    return bool(owner.block == op.operation.block and owner.is_before_in_block(op.operation))


def _absorb(combine: Sum, user: ir.Operation) -> Sum:
    wider = _like(combine, user.results[0].type)
    old = combine.finish.blocks[0]
    block = fill_region(wider.finish, [ir.F32Type.get(combine.context)])
    with ir.InsertionPoint(block), user.location:
        known: dict[ir.Value, ir.Value] = {combine.out: inline(old, list(block.arguments))[0]}
        for value in user.operands:
            if value not in known:
                known[value] = ElementOp(value, ir.StringAttr.get("token"), element_type(value)).element
        yield_value(scalar_copy(user, known))
    user.results[0].replace_all_uses_with(wider.out)
    user.erase()
    combine.operation.erase()
    return wider


def _like(combine: Sum, type_: ir.Type) -> Sum:
    """The same sum in front of it, with a result of another type, its finish still empty."""
    with ir.InsertionPoint(combine), combine.location:
        if isinstance(combine, CollectOp):
            return CollectOp(combine.rows, combine.places, type_)
        wider = GroupedMatmulCombineOp(
            combine.lhs, combine.tokens, combine.offsets, combine.slots, list(combine.weights),
            flag(combine.gather), combine.slots_per_token, type_,
        )  # fmt: skip
        if combine.transposed:
            wider.operation.attributes["transposed"] = ir.UnitAttr.get(combine.context)
    combine.epilogue.blocks[0].append_to(wider.epilogue)
    return wider
