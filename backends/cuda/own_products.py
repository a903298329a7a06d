"""A linear that stays floats in all formats is a product of its own in all of them.

Where it is as wide as others, experts of floats multiply all of them at once; those whose others are codes cannot.  The
same linear must be the same product everywhere (`same_product`), as a device has its weights once.  So linears whose
sums meet in one epilogue are put in one form wherever formats differ in how they multiply them: a product that gives
its sums for each that stays floats in all, and one of all others, whose epilogue reads these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch_mlir import ir

from moec.backends.cpu.parameters import is_parameter
from moec.backends.cuda.rows_to_add import flag
from moec.backends.cuda.shares import shares
from moec.dialect import ElementOp, GroupedMatmulOp
from moec.dialect.formats import format_of

_CODES = ("moe.dequantize", "moe.quantize")


@dataclass(frozen=True)
class _Meeting:
    """Linears whose sums meet in the epilogue of `last`, a product of some of them.

    before   the products of the others, which give their sums alone
    weights  of all, the rows that they multiply, and what the epilogue knows their sums as
    """

    last: ir.Operation
    before: tuple[ir.Operation, ...]
    weights: tuple[ir.Value, ...]
    rows: tuple[ir.Value, ...]
    sums: tuple[ir.Value, ...]

    @property
    def parameters(self) -> tuple[ir.Value | None, ...]:
        """Those whose experts are multiplied, or None for what is none."""
        return tuple(map(_parameter, self.weights))

    @property
    def form(self) -> list[list[ir.Value | None]]:
        """Which parameters are multiplied together, product by product."""
        return [[_parameter(weight) for weight in op.opview.weights] for op in (*self.before, self.last)]


def apart(branches: Sequence[Sequence[ir.Operation]]) -> list[tuple[ir.Operation, ...]]:
    """The products of each format's experts, in one form where formats have the same linears in different ones."""
    lists = [list(products) for products in branches]
    meetings = [[_meeting(op, products) for op in products if not _gives_sums(op)] for products in lists]
    if len({len(found) for found in meetings}) > 1:
        return [tuple(products) for products in lists]
    for alike in zip(*meetings, strict=True):
        if not _same_linears(alike) or len({str(one.form) for one in alike}) == 1:
            continue
        floats = [parameter for parameter in alike[0].parameters if all(_is_float(one, parameter) for one in alike)]
        rest = [_rest(one, floats) for one in alike]
        if all(numbers and _together(one, numbers) for one, numbers in zip(alike, rest, strict=True)):
            for one, products in zip(alike, lists, strict=True):
                _put_in_form(one, floats, products)
    return [tuple(products) for products in lists]


def _meeting(last: ir.Operation, products: Sequence[ir.Operation]) -> _Meeting:
    view: Any = last.opview
    weights, sums = list(view.weights), list(last.regions[0].blocks[0].arguments)
    rows = [view.lhs] * len(weights)
    before = []
    for op in products:
        uses = [use.owner.operation for use in op.results[0].uses]
        read = [use for use in uses if use.name == "moe.element" and use.parent == last]
        same = [op.opview.offsets, op.opview.slots] == [view.offsets, view.slots]
        if op != last and same and _gives_sums(op) and len(read) == len(uses) == 1:
            before.append(op)
            weights += op.opview.weights
            rows.append(op.opview.lhs)
            sums.append(read[0].results[0])
    return _Meeting(last, tuple(before), tuple(weights), tuple(rows), tuple(sums))


def _gives_sums(product: ir.Operation) -> bool:
    """Whether a product of one weight gives its sums as they are."""
    block = product.regions[0].blocks[0]
    (first, *more) = (op.operation for op in block.operations)
    return not more and len(block.arguments) == 1 and list(first.operands) == list(block.arguments)


def _parameter(weight: ir.Value) -> ir.Value | None:
    while not isinstance(weight.owner, ir.Block) and weight.owner.operation.name in _CODES:
        weight = weight.owner.operation.operands[0]
    found = shares(weight) if is_parameter(weight) else []
    return found[0].parameter if len(found) == 1 else None


def _same_linears(meetings: Sequence[_Meeting]) -> bool:
    first = meetings[0].parameters
    same = all(set(one.parameters) == set(first) and len(one.parameters) == len(first) for one in meetings)
    return same and all(parameter is not None for parameter in first) and len(set(first)) == len(first)


def _is_float(meeting: _Meeting, parameter: ir.Value | None) -> bool:
    return format_of(meeting.weights[meeting.parameters.index(parameter)]) is None


def _rest(meeting: _Meeting, floats: Sequence[ir.Value | None]) -> list[int]:
    """The numbers of all weights but these."""
    return [n for n, parameter in enumerate(meeting.parameters) if parameter not in floats]


def _together(meeting: _Meeting, numbers: Sequence[int]) -> bool:
    """Whether one product can have these weights."""
    kinds = {(str(meeting.weights[n].type), format_of(meeting.weights[n]), meeting.rows[n]) for n in numbers}
    return len(kinds) == 1


def _put_in_form(meeting: _Meeting, floats: Sequence[ir.Value | None], products: list[ir.Operation]) -> None:
    """Multiplies `floats` one by one, in this order, and all others together; `products` are those of the format."""
    last, view = meeting.last, meeting.last.opview
    numbers = {parameter: n for n, parameter in enumerate(meeting.parameters)}
    own = [numbers[parameter] for parameter in floats]
    rest = _rest(meeting, floats)
    with ir.InsertionPoint(last), last.location:
        made = [_product(view, meeting.rows[n], [meeting.weights[n]], _sums(meeting.weights[n])) for n in own]
        for one in made:
            block = ir.Block.create_at_start(one.regions[0], [ir.F32Type.get()])
            with ir.InsertionPoint(block):
                ir.Operation.create("moe.yield", operands=list(block.arguments))
        end = _product(view, meeting.rows[rest[0]], [meeting.weights[n] for n in rest], last.results[0].type)
    last.regions[0].blocks[0].append_to(end.regions[0])
    block = end.regions[0].blocks[0]
    before = len(block.arguments)
    for n in rest:
        meeting.sums[n].replace_all_uses_with(block.add_argument(ir.F32Type.get(last.context), last.location))
    with ir.InsertionPoint.at_block_begin(block), last.location:
        for n, one in zip(own, made, strict=True):
            read = ElementOp(one.results[0], ir.StringAttr.get("row"), ir.F32Type.get())
            meeting.sums[n].replace_all_uses_with(read.element)
    for value in meeting.sums[before:]:
        value.owner.operation.erase()
    for n in reversed(range(before)):
        block.erase_argument(n)
    last.results[0].replace_all_uses_with(end.results[0])
    place = products.index(last)
    products[place : place + 1] = [*made, end]
    for op in meeting.before:
        products.remove(op)
    for op in (last, *meeting.before):
        op.erase()


def _product(view: Any, rows: ir.Value, weights: Sequence[ir.Value], out: ir.Type) -> ir.Operation:
    made = GroupedMatmulOp(
        rows, view.offsets, view.slots, list(weights), flag(view.gather), view.slots_per_token, [out]
    )
    operation: ir.Operation = made.operation
    return operation


def _sums(weight: ir.Value) -> ir.Type:
    columns = ir.RankedTensorType(weight.type).get_dim_size(1)
    return ir.RankedTensorType.get([ir.ShapedType.get_dynamic_size(), columns], ir.F32Type.get())
