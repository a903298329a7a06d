"""Takes the linears out of row programs that `hoist-router` leaves: gradients go through matmuls of all tokens only."""

from torch_mlir import ir

from moec.dialect import MapOp, MatmulOp, RowOp
from moec.passes.gradients.refusal import no_gradient
from moec.passes.gradients.tape import DYNAMIC, row
from moec.passes.rewriting import clone, count_axis, dims, element_type, fill_region, operations, yield_value
from moec.passes.row_matmuls import inside, starts_at_zero


def hoist_rest(block: ir.Block) -> None:
    """Replace every `linalg.matvec` in the programs of a function's block.

    Its operand is computed for all tokens by a map; the linear is then a matmul whose row the program reads.
    """
    for program in operations(block, "moe.route", "moe.map"):
        for matvec in operations(program.operation.regions[0].blocks[0], "linalg.matvec"):
            with ir.InsertionPoint(program), matvec.operation.location:
                _hoist(program.operation, matvec.operation)


def _hoist(program: ir.Operation, matvec: ir.Operation) -> None:
    matrix, vector, start = matvec.operands
    if inside(matrix, matvec.block) or not starts_at_zero(start):
        raise no_gradient(matvec, "through a product whose matrix is no parameter")
    x = program.operands[0]
    made = MapOp(x, ir.RankedTensorType.get([DYNAMIC(), *dims(vector)], element_type(vector)))
    with ir.InsertionPoint(made.body.blocks.append()):
        known: dict[ir.Value, ir.Value] = {}
        for argument in program.regions[0].blocks[0].arguments:
            known[argument] = row(x)
        for op in program.regions[0].blocks[0].operations:
            if op.operation == matvec:
                break
            clone(op.operation, known)
        yield_value(known.get(vector, vector))
    f32 = ir.F32Type.get()
    result = ir.RankedTensorType.get([DYNAMIC(), dims(matrix)[0]], f32)
    matmul = MatmulOp(made.out, [count_axis(matrix)], [result])
    epilogue = fill_region(matmul.epilogue, [f32])
    with ir.InsertionPoint(epilogue):
        yield_value(epilogue.arguments[0])
    with ir.InsertionPoint(matvec):
        value = matvec.results[0]
        value.replace_all_uses_with(RowOp(matmul.out, value.type).row)
    matvec.erase()
