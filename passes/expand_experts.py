"""Experts become grouped matmuls: one for each linear, each with the elementwise work that follows it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch_mlir import ir

from moec.dialect import DispatchOp, ExpertsOp, GroupedMatmulOp
from moec.passes.base import Pass, Remarks
from moec.passes.refusal import refuse
from moec.passes.rewriting import (
    body,
    defining,
    dims,
    fill_region,
    flag,
    integer,
    operations,
    terminator,
    yield_value,
)
from moec.passes.row_matmuls import NotARowMatmul, RowMatmuls, row_of


@dataclass(frozen=True)
class ExpandExperts(Pass):
    """Replaces `moe.experts` by `moe.grouped_matmul`s on the dispatched rows."""

    name: ClassVar[str] = "expand-experts"

    def apply(self, module: ir.Module, remarks: Remarks) -> None:
        for op in operations(body(module), "moe.experts"):
            expand(op, remarks, self)


def expand(experts: ExpertsOp, remarks: Remarks, by: Pass) -> None:
    dispatch = defining(experts.rows)
    if dispatch is None or dispatch.name != "moe.dispatch":
        raise refuse(experts, "the rows of experts must come from a dispatch")
    block = experts.body.blocks[0]
    result = terminator(block).operands[0]
    with ir.InsertionPoint(experts), experts.location:
        matmuls = RowMatmuls(block, experts.rows, "row", _emitter(dispatch.opview))
        try:
            count = lower_all(matmuls, result)
        except NotARowMatmul as why:
            raise refuse(experts, f"this expert cannot be made of matmuls: {why}") from why
    experts.out.replace_all_uses_with(matmuls.materialised[result])
    remarks.add(by, f"experts became {count} grouped matmuls", experts.location)
    experts.operation.erase()


def lower_all(matmuls: RowMatmuls, result: ir.Value) -> int:
    """Lower every matvec of the program, so that `result` exists; returns how many there were.

    In order, but for those that an epilogue of an earlier one reads, which go before it.
    """
    matvecs = [op.operation for op in operations(matmuls.block, "linalg.matvec")]
    gives = {op.results[0]: op.results[0] for op in matvecs}
    needs = {op.results[0]: matmuls.dependencies(row_of(op.operands[1])) for op in matvecs}
    for wanted in [*(row_of(op.operands[1]) for op in matvecs), result]:
        if wanted in gives or (matmuls.is_row(wanted) and wanted != result):
            continue
        home = matmuls.home(wanted)
        if home is not None:
            gives[home.results[0]] = wanted
            needs[home.results[0]] += [op for op in matmuls.dependencies(wanted) if op != home]
        elif wanted == result:
            raise NotARowMatmul("its output depends on no linear")
    begun: set[ir.Value] = set()

    def lower(op: ir.Operation) -> None:
        value = op.results[0]
        if value in begun:
            if gives[value] not in matmuls.materialised:
                raise NotARowMatmul("two different values made from one linear are needed by later linears")
            return
        begun.add(value)
        for one in needs[value]:
            lower(one)
        matmuls.lower(op, gives[value])

    for op in matvecs:
        lower(op)
    return len(matvecs)


def _emitter(dispatch: DispatchOp) -> Callable[..., ir.Value]:
    slots = dims(dispatch.index)[1]

    def emit(lhs: ir.Value, weights: ir.Value, out: ir.Type, epilogue: Callable[[ir.Value], ir.Value]) -> ir.Value:
        result = ir.RankedTensorType.get([ir.ShapedType.get_dynamic_size(), dims(weights)[1]], out)
        matmul = GroupedMatmulOp(
            lhs, dispatch.offsets, dispatch.slots, [weights], flag(False), integer(slots), [result]
        )
        block = fill_region(matmul.epilogue, [ir.F32Type.get()])
        with ir.InsertionPoint(block):
            yield_value(epilogue(block.arguments[0]))
        return matmul.out

    return emit
