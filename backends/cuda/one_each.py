"""Several experts that every token chooses get products of their own, each of one expert.

Shared experts of one declaration that are not like the routed ones are experts 0 to n - 1 of a choice of their own.
One of them needs no plan (`dense`), and neither do n, one after the other: each adds its rows to the total so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch_mlir import ir
from torch_mlir.dialects import tensor

from moec.backends.cpu.layer import reads
from moec.backends.cuda.rowcodes import is_quantised
from moec.dialect import DequantizeOp, ElementOp

_ALIGNED = 16
"""Both sides of a matrix are multiples of so many elements: then an expert's weights and scales begin at 16 bytes."""
_OF_EXPERTS = ("column", "expert")


def can_be_one_each(products: Sequence[ir.Operation]) -> bool:
    """Whether the products of experts' plan can be those of each expert alone."""
    lasts = [op for op in products if op.name == "moe.grouped_matmul_combine"]
    sides = [ir.RankedTensorType(weight.type).shape[1:] for op in products for weight in op.opview.weights]
    aligned = all(side % _ALIGNED == 0 for dims in sides for side in dims)
    chains = [_products_of(last, products) for last in lasts]
    apart = sorted(map(products.index, (op for chain in chains for op in chain))) == list(range(len(products)))
    return aligned and apart and all(_added_to(last.regions[1].blocks[0]) is not None for last in lasts)


def one_each(block: ir.Block, products: Sequence[ir.Operation], count: int) -> list[ir.Operation]:
    """The products of each of `count` experts alone, in place of those of all of a plan."""
    lasts = [op for op in products if op.name == "moe.grouped_matmul_combine"]
    chains = [_products_of(last, products) for last in lasts]
    return [op for chain in chains for op in _one_each(block, chain, count)]


def _products_of(last: ir.Operation, products: Sequence[ir.Operation]) -> list[ir.Operation]:
    """A combination and those of the products that it waits for, in order."""
    found, wanted = [last], reads(last)
    for op in reversed(products):
        wanted |= {value.owner.operation.operands[0] for value in wanted if is_quantised(value)}
        if op != last and not wanted.isdisjoint(op.results):
            found.append(op)
            wanted |= reads(op)
    return found[::-1]


def _one_each(block: ir.Block, products: Sequence[ir.Operation], count: int) -> list[ir.Operation]:
    last = products[-1]
    chain = _chain(block, products)
    found: list[ir.Operation] = []
    total: ir.Value | None = None
    with ir.InsertionPoint(last), last.location:
        for expert in range(count):
            made = _copied(chain, products, expert)
            found += [copy for op, copy in zip(chain, made, strict=True) if op in products]
            total = _add(made[-1], total, ends=expert == count - 1)
    assert total is not None, "there is an expert"
    last.results[0].replace_all_uses_with(total)
    for op in reversed(chain):
        op.erase()
    return found


def _added_to(finish: ir.Block) -> ir.Operation | None:
    """What adds the sum of the experts to something else, or gives it as it is: alone reads it."""
    users = [use.owner.operation for use in finish.arguments[0].uses]
    return users[0] if len(users) == 1 and users[0].name in ("arith.addf", "moe.yield") else None


def _chain(block: ir.Block, products: Sequence[ir.Operation]) -> list[ir.Operation]:
    """The products with what rounds rows between them."""
    made = {value for product in products for value in product.results}
    return [
        op.operation
        for op in block.operations
        if op.operation in products or (op.operation.name == "moe.quantize_rows" and op.operation.operands[0] in made)
    ]


def _copied(chain: Sequence[ir.Operation], products: Sequence[ir.Operation], expert: int) -> list[ir.Operation]:
    """The same operations with the weights of one expert."""
    known: dict[ir.Value, ir.Value] = {}
    copies = []
    for op in chain:
        if op in products:
            known |= {weight: _of_expert(weight, expert) for weight in op.opview.weights}
        known |= {value: _slice(value, expert) for value in map(_read_by_expert, _inside(op)) if value is not None}
        copy = op.clone()
        for one in (copy, *_inside(copy)):
            for number, operand in enumerate(one.operands):
                if operand in known:
                    one.operands[number] = known[operand]
        known |= dict(zip(op.results, copy.results, strict=True))
        copies.append(copy)
    return copies


def _inside(op: ir.Operation) -> list[ir.Operation]:
    return [one.operation for region in op.regions for one in region.blocks[0].operations]


def _read_by_expert(op: ir.Operation) -> ir.Value | None:
    """The tensor of whose rows, one of each expert, an operation of an epilogue reads elements."""
    by_expert = op.name == "moe.element" and ir.StringAttr(op.attributes["kind"]).value in _OF_EXPERTS
    return op.operands[0] if by_expert else None


def _of_expert(weight: ir.Value, expert: int) -> ir.Value:
    """The matrix of one expert."""
    owner = None if isinstance(weight.owner, ir.Block) else weight.owner.operation
    if owner is None or owner.name != "moe.dequantize":
        return _slice(weight, expert)
    codes, scales = (_slice(operand, expert) for operand in owner.operands)
    shape = ir.RankedTensorType(weight.type).shape
    type_ = ir.RankedTensorType.get([1, *shape[1:]], ir.RankedTensorType(weight.type).element_type)
    return DequantizeOp(codes, scales, owner.attributes["format"], type_).weights


def _slice(value: ir.Value, expert: int) -> ir.Value:
    whole = ir.RankedTensorType(value.type)
    sizes = [1, *whole.shape[1:]]
    offsets = [expert] + [0] * (whole.rank - 1)
    type_ = ir.RankedTensorType.get(sizes, whole.element_type)
    made: Any = tensor.ExtractSliceOp(type_, value, [], [], [], offsets, sizes, [1] * whole.rank)
    result: ir.Value = made.result
    return result


def _add(combination: ir.Operation, total: ir.Value | None, ends: bool) -> ir.Value:
    """Lets an expert's combination add its rows to the total so far, and finish it where it is the last one."""
    block = combination.regions[1].blocks[0]
    (mine,) = block.arguments
    added = _added_to(block)
    assert added is not None, "finishes are looked at before they are copied"
    if total is not None:
        with ir.InsertionPoint.at_block_begin(block), combination.location:
            before = ElementOp(total, ir.StringAttr.get("token"), ir.F32Type.get()).element
            both = ir.Operation.create("arith.addf", [ir.F32Type.get()], [before, mine]).result
        if added.name == "moe.yield":
            added.operands[0] = both
        else:
            added.results[0].replace_all_uses_with(both)
    elif added.name == "arith.addf":
        both = added.results[0]
    else:
        both = mine
    if not ends:
        list(block.operations)[-1].operation.operands[0] = both
        type_ = ir.RankedTensorType(combination.results[0].type)
        combination.results[0].set_type(ir.RankedTensorType.get(type_.shape, ir.F32Type.get()))
    for op in reversed([op.operation for op in block.operations][:-1]):
        if not any(list(result.uses) for result in op.results):
            op.erase()
    result: ir.Value = combination.results[0]
    return result
