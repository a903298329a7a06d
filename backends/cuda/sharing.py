"""Experts that are stored in different ways share a plan on a device.

In the IR each format has a choice, a plan, products and a combination of its own.  On a device each of them is a
launch, and takes room for all rows.  Here they get one plan; products of the same step, each of its experts (`part`),
give rows of one tensor (`moe.join_rows`), which are added up once (`moe.sum_rows`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch_mlir import ir

from moec.backends.cpu.layer import reads
from moec.backends.cuda.own_products import apart
from moec.backends.cuda.rows_to_add import element_of_rows, rows_of, sum_of
from moec.backends.cuda.same_product import as_one
from moec.dialect import JoinRowsOp, PlanOp
from moec.dialect.parts import PART
from moec.dialect.subsets import renumbered


@dataclass(frozen=True)
class _Branch:
    """Experts of one format.

    experts   their numbers among all
    products  grouped matmuls of the plan, in order, and `last`, whose rows are combined
    """

    plan: ir.Operation
    experts: tuple[int, ...]
    products: tuple[ir.Operation, ...]
    last: ir.Operation

    @property
    def rows_type(self) -> ir.Type:
        """Of the elements of rows that are combined (see `combine`)."""
        return element_of_rows(self.last.operands[0])


def share_plans(block: ir.Block) -> None:
    """Rewrites the block of a layer in which experts of different formats can share a plan."""
    choices: dict[ir.Value, list[tuple[ir.Operation, tuple[int, ...]]]] = {}
    for plan in (op.operation for op in block.operations if op.operation.name == "moe.plan"):
        found = renumbered(plan.operands[0])
        if found is not None:
            numbers, index = found
            choices.setdefault(index, []).append((plan, numbers))
    for index, plans in choices.items():
        branches = _branches(block, plans)
        if branches is not None:
            _share(block, index, branches)


def _branches(block: ir.Block, plans: Sequence[tuple[ir.Operation, tuple[int, ...]]]) -> tuple[_Branch, ...] | None:
    """Those of some plans in the order in which they are combined; None where they cannot share one."""
    made = []
    for plan, numbers in plans:
        readers = [op.operation for op in block.operations if not set(plan.results).isdisjoint(op.operation.operands)]
        *products, last = readers or [plan]
        alike = all(op.name == "moe.grouped_matmul" and len(op.results) == 1 for op in products)
        straight = all("transposed" not in op.attributes for op in readers)
        if not alike or not straight or last.name != "moe.grouped_matmul_combine":
            return None
        made.append(_Branch(plan, numbers, tuple(products), last))
    order = [op.operation for op in block.operations]
    made.sort(key=lambda branch: order.index(branch.last))
    whole = sorted(number for branch in made for number in branch.experts)
    same = len({str(branch.rows_type) for branch in made}) == 1 and whole == list(range(len(whole)))
    added = [_addition(before.last, after.last) for before, after in pairwise(made)]
    chained = all(op is not None for op in added)
    given = chained and all(map(_gives, made[:-1], [None, *added]))
    return tuple(made) if len(made) > 1 and same and given else None


def _gives(branch: _Branch, addition: ir.Operation | None) -> bool:
    """Whether a branch gives its sums, or what an addition makes of them, as they are."""
    finish = branch.last.regions[1].blocks[0]
    sums = finish.arguments[0] if addition is None else addition.results[0]
    return bool(list(finish.operations)[-1].operation.operands[0] == sums)


def _addition(before: ir.Operation, after: ir.Operation) -> ir.Operation | None:
    """What adds the sums of one combination to those of the next; None where they are used in another way."""
    uses = [use.owner.operation for use in before.results[0].uses]
    if [op.name for op in uses] != ["moe.element"] or uses[0].parent != after:
        return None
    (total,) = after.regions[1].blocks[0].arguments
    users = [use.owner.operation for value in (uses[0].results[0], total) for use in value.uses]
    if len(users) != 2 or users[0] != users[1] or users[0].name != "arith.addf":
        return None
    return users[0]


def _share(block: ir.Block, index: ir.Value, branches: Sequence[_Branch]) -> None:
    first, count = branches[0], sum(len(branch.experts) for branch in branches)
    for before, after in pairwise(branches):
        addition = _addition(before.last, after.last)
        assert addition is not None, "chains are looked at before they are changed"
        (total,) = after.last.regions[1].blocks[0].arguments
        element = next(value for value in addition.operands if value != total).owner.operation
        addition.results[0].replace_all_uses_with(total)
        addition.erase()
        element.erase()
    end = list(block.operations)[-1]
    with ir.InsertionPoint(end), first.last.location:
        offsets = ir.RankedTensorType.get([count + 1], ir.IntegerType.get_signless(32))
        slots = first.plan.results[1].type
        plan = PlanOp(index, _integer(count), first.plan.attributes["direct_max_tokens"], offsets, slots)
        products = apart([branch.products for branch in branches])
        steps = [[_with_plan(op, branch, plan) for op in ops] for branch, ops in zip(branches, products, strict=True)]
        if len({tuple(str(op.results[0].type) for op in step) for step in steps}) == 1:
            for step in zip(*steps, strict=True):
                if as_one(step) is None:
                    _join(step, plan)
        rows = _join([_rows(branch, plan) for branch in branches], plan)
        last = branches[-1].last
        total = sum_of(last, rows, plan.offsets, plan.slots)
    last.results[0].replace_all_uses_with(total.results[0])
    for branch in branches:
        branch.last.erase()
        branch.plan.erase()
    _round_once(block)
    _put_in_order(block)


def _with_plan(product: ir.Operation, branch: _Branch, plan: PlanOp) -> ir.Operation:
    """The product with the common plan."""
    for number, operand in enumerate(product.operands):
        if operand in branch.plan.results:
            product.operands[number] = plan.operation.results[list(branch.plan.results).index(operand)]
    product.attributes[PART] = ir.DenseI32ArrayAttr.get(branch.experts)
    return product


def _rows(branch: _Branch, plan: PlanOp) -> ir.Operation:
    """The product whose rows are combined, as one that gives these."""
    made = rows_of(branch.last, plan.offsets, plan.slots)
    made.attributes[PART] = ir.DenseI32ArrayAttr.get(branch.experts)
    return made


def _join(products: Sequence[ir.Operation], plan: PlanOp) -> ir.Value:
    """The rows of all products, which are read in place of those of each."""
    rows = [product.results[0] for product in products]
    uses = [(use.owner.operation, use.operand_number) for value in rows for use in value.uses]
    join = JoinRowsOp(plan.offsets, rows, rows[0].type)
    for operation, number in uses:
        operation.operands[number] = join.out
    return join.out


def _round_once(block: ir.Block) -> None:
    """Rows that were joined are rounded to int8 for all formats at once."""
    known: dict[ir.Value, ir.Operation] = {}
    for op in [op.operation for op in block.operations if op.operation.name == "moe.quantize_rows"]:
        first = known.setdefault(op.operands[0], op)
        if first != op:
            op.results[0].replace_all_uses_with(first.results[0])
            op.erase()


def _put_in_order(block: ir.Block) -> None:
    """Every operation behind those that it reads, else as they are; choices that nobody reads any more are removed."""
    *body, end = (op.operation for op in block.operations)
    made = {result: op for op in body for result in op.results}
    placed: list[ir.Operation] = []

    def place(operations: Iterable[ir.Operation]) -> None:
        for op in operations:
            if op not in placed:
                place(made[value] for value in reads(op) if value in made)
                placed.append(op)

    place(body)
    for op in placed:
        op.move_before(end)
    for op in reversed(placed):
        if op.name == "moe.route" and not any(list(result.uses) for result in op.results):
            op.erase()


def _integer(value: int) -> ir.Attribute:
    return ir.IntegerAttr.get(ir.IntegerType.get_signless(64), value)
