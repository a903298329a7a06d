"""Reverse mode over straight-line operations: from gradients of results to those of what they were computed from."""

from collections.abc import Iterable, Mapping, Sequence

from torch_mlir import ir

from moec.passes.gradients import row_rules, scalar_rules
from moec.passes.gradients.formulas import add
from moec.passes.gradients.row_rules import NoRule

RULES = {**scalar_rules.RULES, **row_rules.RULES}


def is_float(value: ir.Value) -> bool:
    type_ = value.type
    element = type_.element_type if isinstance(type_, ir.RankedTensorType) else type_
    return isinstance(element, ir.F32Type | ir.BF16Type | ir.F16Type)


def reaching(operations: Iterable[ir.Operation], wanted: Iterable[ir.Value]) -> set[ir.Value]:
    """The floating-point values that depend on `wanted`, with these."""
    active = set(wanted)
    for op in operations:
        if any(operand in active for operand in op.operands):
            active.update(result for result in op.results if is_float(result))
    return active


def reverse(
    operations: Sequence[ir.Operation], seeds: Mapping[ir.Value, ir.Value], wanted: Sequence[ir.Value]
) -> list[ir.Value | None]:
    """The gradients of `wanted` (None: they are zero), computed at the insertion point.

    `operations` stand in order, before it; `seeds` are the gradients of values among their results.  Raises NoRule for
    an operation that has none and that a gradient has to go through.
    """
    active = reaching(operations, wanted)
    gradients: dict[ir.Value, ir.Value] = {value: d for value, d in seeds.items() if value in active}
    for op in reversed(operations):
        arrived = [result for result in op.results if result in gradients]
        if not arrived or not any(operand in active for operand in op.operands):
            continue
        if op.name not in RULES:
            raise NoRule(op.name)
        for value, part in RULES[op.name](op, gradients[arrived[0]]):
            if value in active:
                gradients[value] = add(gradients.get(value), part())
    return [gradients.get(value) for value in wanted]
