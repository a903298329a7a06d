"""Experts that every token chooses need no plan on a device: their products are those of all tokens.

Shared experts that are not like the routed ones have a choice of their own, always experts 0 to n - 1 with weight 1.
Where there is one, its rows in plan order are the tokens, and there is one of each to combine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch_mlir import ir

from moec.backends.cuda.one_each import can_be_one_each, one_each
from moec.dialect import MatmulOp

_PRODUCTS = ("moe.grouped_matmul", "moe.grouped_matmul_combine")


def without_plans_of_all(block: ir.Block) -> None:
    """Rewrites the products of such experts in the block of a layer."""
    for op in [op.operation for op in block.operations if op.operation.name == "moe.plan"]:
        choice = _choice(op)
        if choice is None:
            continue
        readers = [one.operation for one in block.operations if not set(op.results).isdisjoint(one.operation.operands)]
        if not all(one.name in _PRODUCTS and "transposed" not in one.attributes for one in readers):
            continue
        count = int(ir.IntegerAttr(op.attributes["experts"]).value)
        if count > 1 and not can_be_one_each(readers):
            continue
        for product in readers if count == 1 else one_each(block, readers, count):
            _weigh_by_one(product, choice.results[1])
            _of_all_tokens(product)
        op.erase()
        if not any(list(result.uses) for result in choice.results):
            choice.erase()


def _choice(plan: ir.Operation) -> ir.Operation | None:
    """The route that a plan sorts, if it gives every token all experts in order, each with weight 1."""
    owner = plan.operands[0].owner
    if isinstance(owner, ir.Block) or owner.operation.name != "moe.route":
        return None
    route = owner.operation
    end = list(route.regions[0].blocks[0].operations)[-1].operation
    count = int(ir.IntegerAttr(plan.attributes["experts"]).value)
    index, weight = map(_constants, end.operands)
    return route if index == list(range(count)) and weight == [1.0] * count else None


def _constants(value: ir.Value) -> list[int | float] | None:
    """The elements of a constant tensor."""
    if isinstance(value.owner, ir.Block) or value.owner.operation.name != "arith.constant":
        return None
    elements: Any = value.owner.operation.attributes["value"]
    return [elements.get_splat_value().value] * len(elements) if elements.is_splat else list(elements)


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
