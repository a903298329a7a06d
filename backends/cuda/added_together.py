"""Rows of experts that every token chooses are added up with those of routed ones.

The last product of such an expert is dense and adds its sums to the routed experts' total (`dense`), for which it would
have to wait.  Here it gives rows, rounded as those of routed experts are; what adds those up reads its row of each
token, and does what the product did with both.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch_mlir import ir

from moec.backends.cuda.rows_to_add import element_of_rows, rounded, rows_of, sum_of
from moec.dialect import ElementOp, MatmulOp, SumRowsOp

_KINDS = {"row": "token", "token": "token", "scalar": "token_scalar", "token_scalar": "token_scalar"}
"""Of what a dense product reads, by what the same is where rows of tokens are added up."""


def add_up_together(block: ir.Block) -> None:
    """Rewrites the dense products of a layer that add to a total."""
    names = ("moe.grouped_matmul_combine", "moe.sum_rows")
    for op in [op.operation for op in block.operations if op.operation.name in names]:
        total: ir.Operation | None = op
        while total is not None:
            total = _together(total)


def without_combination(combination: ir.Operation) -> ir.Operation:
    """What adds up the rows of a `moe.grouped_matmul_combine`, in place of it, its product before it."""
    view = combination.opview
    with ir.InsertionPoint(combination), combination.location:
        rows = rows_of(combination, view.offsets, view.slots)
        made = sum_of(combination, rows.results[0], view.offsets, view.slots)
    combination.results[0].replace_all_uses_with(made.results[0])
    combination.erase()
    return made


def _together(total: ir.Operation) -> ir.Operation | None:
    """What adds up the rows of a total and of the dense product that alone reads it, in place of both; None where
    there is none, or what it does with its sums is not one number for what it does with the total."""
    uses = [use.owner.operation for use in total.results[0].uses]
    if [op.name for op in uses] != ["moe.element"] or uses[0].parent.name != "moe.matmul":
        return None
    (element,) = uses
    product = element.parent
    epilogue = product.regions[0].blocks[0]
    later = _later(epilogue, element)
    given = _given(epilogue, element, later)
    sums = [value for value in given if not _is_read_again(value)]
    if len(product.results) > 1 or len(sums) != 1 or not isinstance(sums[0].type, ir.F32Type):
        return None
    if total.name == "moe.grouped_matmul_combine":
        total = without_combination(total)
    view = product.opview
    type_ = ir.RankedTensorType(product.results[0].type)
    with ir.InsertionPoint(product), product.location:
        rows_type = ir.RankedTensorType.get(type_.shape, element_of_rows(view.lhs))
        made = MatmulOp(view.lhs, list(view.weights), [rows_type])
        added = total.opview
        new = SumRowsOp(added.rows, added.tokens, added.offsets, added.slots, added.slots_per_token, type_)
    total.regions[0].blocks[0].append_to(new.finish)
    _finish(new.finish.blocks[0], element, made.operation.results[0], sums[0], given, later)
    epilogue.append_to(made.epilogue)
    with ir.InsertionPoint(made.epilogue.blocks[0]), product.location:
        end = ir.Operation.create("moe.yield", operands=[sums[0]])
        end.operands[0] = rounded(sums[0], rows_type.element_type, end)
    product.results[0].replace_all_uses_with(new.out)
    product.erase()
    total.erase()
    operation: ir.Operation = new.operation
    return operation


def _later(block: ir.Block, element: ir.Operation) -> list[ir.Operation]:
    """What depends on an element, in order, without it."""
    known, found = set(element.results), []
    for op in (op.operation for op in block.operations):
        if not known.isdisjoint(op.operands):
            found.append(op)
            known |= set(op.results)
    return found


def _given(block: ir.Block, element: ir.Operation, later: Sequence[ir.Operation]) -> list[ir.Value]:
    """The values of a block that these operations take of the others but for the element that they depend on."""
    before = [op.operation for op in block.operations if op.operation not in later and op.operation != element]
    inside = {value for op in before for value in op.results} | set(block.arguments)
    taken = dict.fromkeys(value for op in later for value in op.operands if value in inside)
    return list(taken)


def _is_read_again(value: ir.Value) -> bool:
    """Whether what adds up rows can have a value itself: a constant, or an element that belongs to a token."""
    if isinstance(value.owner, ir.Block):
        return False
    op = value.owner.operation
    kind = ir.StringAttr(op.attributes["kind"]).value if op.name == "moe.element" else ""
    return op.name == "arith.constant" or kind in _KINDS


def _finish(
    finish: ir.Block,
    element: ir.Operation,
    rows: ir.Value,
    sums: ir.Value,
    given: Sequence[ir.Value],
    later: Sequence[ir.Operation],
) -> None:
    """Lets a finish go on with what the epilogue of a dense product did behind its sums."""
    end = list(finish.operations)[-1].operation
    instead = {element.results[0]: end.operands[0]}
    with ir.InsertionPoint(end), element.location:
        for value in given:
            if value == sums:
                row = ElementOp(rows, ir.StringAttr.get("token"), ir.RankedTensorType(rows.type).element_type).element
                wide = row.type == value.type
                instead[value] = row if wide else ir.Operation.create("arith.extf", [value.type], [row]).result
            else:
                copy = value.owner.operation.clone()
                if copy.name == "moe.element":
                    copy.attributes["kind"] = ir.StringAttr.get(_KINDS[ir.StringAttr(copy.attributes["kind"]).value])
                instead[value] = copy.results[0]
    for op in later:
        for number, operand in enumerate(op.operands):
            if operand in instead:
                op.operands[number] = instead[operand]
        op.move_before(end)
    end.erase()
    element.erase()
