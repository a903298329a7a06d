"""An expert that every token chooses needs no plan on a device: its products are those of all tokens.

A shared expert that is not like the routed ones has a choice of its own, always expert 0 with weight 1.  Its rows in
plan order are the tokens, and there is one of each to combine.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch_mlir import ir

from moec.dialect import MatmulOp

_PRODUCTS = ("moe.grouped_matmul", "moe.grouped_matmul_combine")


def without_plans_of_all(block: ir.Block) -> None:
    """Rewrites the products of such experts in the block of a layer."""
    for op in [op.operation for op in block.operations if op.operation.name == "moe.plan"]:
        choice = _choice(op)
        if choice is None:
            continue
        readers = [one.operation for one in block.operations if not set(op.results).isdisjoint(one.operation.operands)]
        if all(one.name in _PRODUCTS and "transposed" not in one.attributes for one in readers):
            for product in readers:
                _weigh_by_one(product, choice.results[1])
                _of_all_tokens(product)
            op.erase()
            if not any(list(result.uses) for result in choice.results):
                choice.erase()


def _choice(plan: ir.Operation) -> ir.Operation | None:
    """The route that a plan sorts, if it gives every token expert 0 of one with weight 1."""
    owner = plan.operands[0].owner
    if isinstance(owner, ir.Block) or owner.operation.name != "moe.route":
        return None
    route = owner.operation
    end = list(route.regions[0].blocks[0].operations)[-1].operation
    wanted = zip(end.operands, (0, 1.0), strict=True)
    one = ir.IntegerAttr(plan.attributes["experts"]).value == 1
    return route if one and all(_is_constant(value, number) for value, number in wanted) else None


def _is_constant(value: ir.Value, number: float) -> bool:
    """Whether a value is a tensor of this one element."""
    if isinstance(value.owner, ir.Block) or value.owner.operation.name != "arith.constant":
        return False
    elements = ir.DenseElementsAttr(value.owner.operation.attributes["value"])
    return len(elements) == 1 and bool(elements.get_splat_value().value == number)


def _weigh_by_one(product: ir.Operation, weight: ir.Value) -> None:
    for use in [use for use in weight.uses if use.owner.operation.parent == product]:
        element = use.owner.operation
        with ir.InsertionPoint(element), element.location:
            one = ir.FloatAttr.get(ir.F32Type.get(), 1.0)
            constant = ir.Operation.create("arith.constant", [one.type], [], {"value": one})
        element.results[0].replace_all_uses_with(constant.result)
        element.erase()


def _of_all_tokens(product: ir.Operation) -> None:
    """The same as a product of the tokens, whose epilogue also finishes what is combined."""
    view = product.opview
    with ir.InsertionPoint(product), product.location:
        made = MatmulOp(view.lhs, list(view.weights), [result.type for result in product.results])
    blocks = [region.blocks[0] for region in product.regions]
    blocks[0].append_to(made.epilogue)
    if len(blocks) > 1:
        _continue(made.epilogue.blocks[0], blocks[1])
    for old, new in zip(product.results, made.operation.results, strict=True):
        old.replace_all_uses_with(new)
    product.erase()


def _continue(epilogue: ir.Block, finish: ir.Block) -> None:
    """Lets an epilogue go on with what a finish does."""
    *_, end = (op.operation for op in epilogue.operations)
    finish.arguments[0].replace_all_uses_with(end.operands[0])
    operations: Sequence[ir.Operation] = [op.operation for op in finish.operations]
    for op in operations:
        op.move_before(end)
    end.erase()
