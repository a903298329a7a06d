"""Products that do not wait for each other are one launch.

How many products come behind one decides when it is made: as late as it may be.  So those of an expert that every
token chooses go with the last ones of routed experts, and a linear with a dtype of its own with others.
"""

from __future__ import annotations

from torch_mlir import ir

from moec.backends.cpu.layer import reads
from moec.backends.cuda.added_together import without_combination
from moec.backends.cuda.matmul.problem import problems
from moec.dialect.joined import join_of
from moec.dialect.launches import LAUNCH

_PRODUCTS = ("moe.matmul", "moe.grouped_matmul", "moe.grouped_matmul_combine", "moe.join_rows")


def share_launches(block: ir.Block) -> None:
    """Marks what has a launch in common in a layer, and puts it side by side: products, and what rounds rows for them.

    Raises Unsupported for a product that there is no kernel for.
    """
    for together in _together(block):
        for op in together:
            if op.name == "moe.grouped_matmul_combine":
                without_combination(op)
    together = _together(block)
    if not together:
        return
    stages = _stages(block)
    *_, end = (op.operation for op in block.operations)
    for op in sorted(stages, key=stages.__getitem__):
        op.move_before(end)
    rounding: dict[int, list[ir.Operation]] = {}
    for op, stage in stages.items():
        if op.name == "moe.quantize_rows":
            rounding.setdefault(stage, []).append(op)
    together += [ops for ops in rounding.values() if len(ops) > 1]
    for number, ops in enumerate(together):
        for op in ops:
            op.attributes[LAUNCH] = ir.IntegerAttr.get(ir.IntegerType.get_signless(64), number)


def _together(block: ir.Block) -> list[list[ir.Operation]]:
    """The products that can have a launch in common: as many come behind each, and all are made on tensor cores, or all
    on plain ones."""
    found: dict[tuple[int, bool], list[ir.Operation]] = {}
    for op, behind in _behind(block).items():
        of = problems(op)
        plain = {one.in_f32 for one in of}
        # kernels for the logits of routers are made for themselves
        if len(plain) == 1 and not any(one.in_f32 and one.lhs_type != "f32" for one in of):
            found.setdefault((behind, plain.pop()), []).append(op)
    return [products for products in found.values() if len(products) > 1]


def _behind(block: ir.Block) -> dict[ir.Operation, int]:
    """How many products wait for each product, one for the other, before the layer's results are known."""
    operations = [op.operation for op in block.operations]
    behind = dict.fromkeys(operations, 0)
    products: dict[ir.Operation, int] = {}
    for op in reversed(operations):
        if _is_launched(op):
            products[op] = behind[op]
        for value in reads(op):
            if not isinstance(value.owner, ir.Block) and value.owner.operation in behind:
                maker = value.owner.operation
                behind[maker] = max(behind[maker], behind[op] + (op in products))
    return dict(reversed(products.items()))


def _is_launched(op: ir.Operation) -> bool:
    """Whether an operation is a product of experts, with a launch of its own so far."""
    if op.name not in _PRODUCTS or join_of(op) is not None:
        return False
    return not any(use.owner.operation.name == "moe.row" for result in op.results for use in result.uses)


def _stages(block: ir.Block) -> dict[ir.Operation, int]:
    """When every operation is made: products with as many behind them in one odd stage, all else in even ones, as soon
    as there is what it reads."""
    products = _behind(block)
    most = max(products.values())
    stages: dict[ir.Operation, int] = {}
    *body, _ = (op.operation for op in block.operations)
    for op in body:
        product = join_of(op) or op
        if product in products:
            stages[op] = 2 * (most - products[product]) + 1
        else:
            makers = [value.owner.operation for value in reads(op) if not isinstance(value.owner, ir.Block)]
            found = max((stages[maker] for maker in makers if maker in stages), default=0)
            stages[op] = found + found % 2
    return stages
