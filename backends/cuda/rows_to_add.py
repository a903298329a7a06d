"""A product whose rows are combined, as two operations: one that gives the rows, and one that adds them up."""

from __future__ import annotations

from torch_mlir import ir

from moec.backends.cuda.rowcodes import before_rounding
from moec.dialect import GroupedMatmulOp, SumRowsOp


def element_of_rows(lhs: ir.Value) -> ir.Type:
    """Of the elements of rows that are added up: the type of the rows that were multiplied, before any rounding."""
    return ir.RankedTensorType(before_rounding(lhs).type).element_type


def rows_of(combination: ir.Operation, offsets: ir.Value, slots: ir.Value) -> ir.Operation:
    """The product of a `moe.grouped_matmul_combine`, whose epilogue it takes over, for this plan."""
    view = combination.opview
    element = element_of_rows(view.lhs)
    shape = [ir.ShapedType.get_dynamic_size(), ir.RankedTensorType(view.out.type).get_dim_size(1)]
    made = GroupedMatmulOp(
        view.lhs, offsets, slots, list(view.weights), flag(view.gather), view.slots_per_token,
        [ir.RankedTensorType.get(shape, element)],
    )  # fmt: skip
    combination.regions[0].blocks[0].append_to(made.epilogue)
    end = list(made.epilogue.blocks[0].operations)[-1].operation
    with combination.location:
        end.operands[0] = rounded(end.operands[0], element, end)
    operation: ir.Operation = made.operation
    return operation


def sum_of(combination: ir.Operation, rows: ir.Value, offsets: ir.Value, slots: ir.Value) -> ir.Operation:
    """What adds up rows of a plan as a `moe.grouped_matmul_combine` does, whose finish it takes over."""
    view = combination.opview
    made = SumRowsOp(rows, view.tokens, offsets, slots, view.slots_per_token, view.out.type)
    combination.regions[1].blocks[0].append_to(made.finish)
    operation: ir.Operation = made.operation
    return operation


def rounded(value: ir.Value, element: ir.Type, before: ir.Operation) -> ir.Value:
    """A value in f32 as one of this type, before an operation."""
    if value.type == element:
        return value
    with ir.InsertionPoint(before):
        return ir.Operation.create("arith.truncf", [element], [value]).result


def flag(given: ir.Attribute) -> ir.Attribute:
    """A boolean attribute that builders do not take for none, as they do one of false."""
    return ir.IntegerAttr.get(ir.IntegerType.get_signless(1), int(ir.IntegerAttr(given).value))
