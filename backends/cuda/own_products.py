"""A linear that stays floats in all formats is a product of its own in all of them.

Where it is as wide as others, experts of floats multiply all of them at once; those whose others are codes cannot.  The
same linear must be the same product everywhere (`same_product`), as a device has its weights once: so experts of floats
get a product for each weight, too, of which all but the last give sums that the last one's epilogue reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch_mlir import ir

from moec.backends.cpu.parameters import is_parameter
from moec.backends.cuda.shares import shares
from moec.dialect import ElementOp, GroupedMatmulOp

_CODES = ("moe.dequantize", "moe.quantize")


def apart(branches: Sequence[Sequence[ir.Operation]]) -> list[tuple[ir.Operation, ...]]:
    """The products of each format's experts: those that another format has one by one are so, too, in its order."""
    orders = [[_parameters(product) for product in products] for products in branches]
    return [tuple(one for product in products for one in _split(product, orders)) for products in branches]


def _parameters(product: ir.Operation) -> tuple[ir.Value | None, ...]:
    """Those whose experts a product multiplies, or None for what is none."""
    view: Any = product.opview
    return tuple(map(_parameter, view.weights))


def _parameter(weight: ir.Value) -> ir.Value | None:
    while not isinstance(weight.owner, ir.Block) and weight.owner.operation.name in _CODES:
        weight = weight.owner.operation.operands[0]
    found = shares(weight) if is_parameter(weight) else []
    return found[0].parameter if len(found) == 1 else None


def _split(product: ir.Operation, orders: Sequence[Sequence[tuple[ir.Value | None, ...]]]) -> list[ir.Operation]:
    """Itself, or a product for each of its weights."""
    view: Any = product.opview
    weights, mine = list(view.weights), _parameters(product)
    for order in orders:
        numbers = [mine.index(of[0]) for of in order if len(of) == 1 and of[0] is not None and of[0] in mine]
        if len(weights) > 1 and sorted(numbers) == list(range(len(weights))):
            return _one_by_one(product, numbers)
    return [product]


def _one_by_one(product: ir.Operation, numbers: Sequence[int]) -> list[ir.Operation]:
    """Products of the weights in the order of `numbers`; the last one has the epilogue."""
    view: Any = product.opview
    weights = list(view.weights)
    *before, last = numbers
    with ir.InsertionPoint(product), product.location:
        made = [_product(view, weights[n], _sums(weights[n])) for n in before]
        for one in made:
            block = ir.Block.create_at_start(one.regions[0], [ir.F32Type.get()])
            with ir.InsertionPoint(block):
                ir.Operation.create("moe.yield", operands=list(block.arguments))
        end = _product(view, weights[last], product.results[0].type)
    product.regions[0].blocks[0].append_to(end.regions[0])
    block = end.regions[0].blocks[0]
    for n, one in zip(before, made, strict=True):
        with ir.InsertionPoint.at_block_begin(block), product.location:
            read = ElementOp(one.results[0], ir.StringAttr.get("row"), ir.F32Type.get())
        block.arguments[n].replace_all_uses_with(read.element)
    for n in sorted(before, reverse=True):
        block.erase_argument(n)
    product.results[0].replace_all_uses_with(end.results[0])
    product.erase()
    return [*made, end]


def _product(view: Any, weight: ir.Value, out: ir.Type) -> ir.Operation:
    gather = ir.IntegerAttr.get(ir.IntegerType.get_signless(1), int(ir.IntegerAttr(view.gather).value))
    made = GroupedMatmulOp(view.lhs, view.offsets, view.slots, [weight], gather, view.slots_per_token, [out])
    operation: ir.Operation = made.operation
    return operation


def _sums(weight: ir.Value) -> ir.Type:
    columns = ir.RankedTensorType(weight.type).get_dim_size(1)
    return ir.RankedTensorType.get([ir.ShapedType.get_dynamic_size(), columns], ir.F32Type.get())
