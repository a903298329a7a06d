"""The linears of a router run as matmuls over the whole batch, ahead of the program that each token runs by itself."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch_mlir import ir

from moec.dialect import MapOp, MatmulOp, RouteOp, RowOp
from moec.passes.base import Pass, Remarks
from moec.passes.rewriting import body, dims, fill_region, operations, yield_value
from moec.passes.row_matmuls import NotARowMatmul, RowMatmuls


@dataclass(frozen=True)
class HoistRouter(Pass):
    """Replaces `linalg.matvec` in `moe.route` and in maps of tokens by rows of a `moe.matmul`, wherever its input is
    the token itself or made element by element from earlier linears.  What remains stays in the row program, correct
    but slower, and is named.
    """

    name: ClassVar[str] = "hoist-router"

    def apply(self, module: ir.Module, remarks: Remarks) -> None:
        for op in operations(body(module), "moe.route", "moe.map"):
            hoist(op, remarks, self)


def hoist(route: RouteOp | MapOp, remarks: Remarks, by: Pass) -> None:
    block = route.body.blocks[0]
    matmuls = RowMatmuls(block, route.operation.operands[0], "token", emit)
    for matvec in [op.operation for op in operations(block, "linalg.matvec")]:
        input_ = matvec.operands[1]
        try:
            with ir.InsertionPoint(route), matvec.location:
                if input_ not in matmuls.materialised and (home := matmuls.home(input_)) is not None:
                    _make_input(matmuls, home, input_)
                matmuls.lower(matvec, matvec.results[0])
        except NotARowMatmul as why:
            remarks.add(by, f"a linear stays in the row program: {why}", matvec.location)
            continue
        remarks.add(by, "a linear of the router runs as one matmul", matvec.location)
    for value, tensor in matmuls.materialised.items():
        _read_row(value, tensor)


def _make_input(matmuls: RowMatmuls, home: ir.Operation, wanted: ir.Value) -> None:
    """Make the input of a later linear come out of a linear that it is built on."""
    if not matmuls.elementwise(wanted):
        raise NotARowMatmul("its input is not computed element by element")
    matmuls.lower(home, wanted)


def _read_row(value: ir.Value, tensor: ir.Value) -> None:
    with ir.InsertionPoint(value.owner), value.owner.operation.location:
        value.replace_all_uses_with(RowOp(tensor, value.type).row)


def emit(lhs: ir.Value, weights: ir.Value, out: ir.Type, epilogue: Callable[[ir.Value], ir.Value]) -> ir.Value:
    result = ir.RankedTensorType.get([ir.ShapedType.get_dynamic_size(), dims(weights)[1]], out)
    matmul = MatmulOp(lhs, [weights], [result])
    block = fill_region(matmul.epilogue, [ir.F32Type.get()])
    with ir.InsertionPoint(block):
        yield_value(epilogue(block.arguments[0]))
    return matmul.out
