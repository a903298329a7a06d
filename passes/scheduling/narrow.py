"""Rows of fewer elements that could travel instead of x (BigMac, arXiv:2502.16927).

Where every expert first multiplies its row by the same matrix, which has fewer rows than columns, that product could be
made before dispatch; all that the experts need of x is in it.
"""

from torch_mlir import ir

from moec.passes.rewriting import body, operations


def narrow_rows(module: ir.Module) -> str:
    """Whether there are such rows, in words: why they do not travel."""
    experts = operations(body(module), "moe.experts")
    if not experts:
        return "its experts are not at graph level"
    for op in experts:
        row = op.operation.regions[0].blocks[0].arguments[0]
        width = ir.RankedTensorType(row.type).get_dim_size(0)
        users = [use.owner.operation for use in row.uses]
        if not users or any(user.name != "linalg.matvec" or user.operands[1] != row for user in users):
            return "not applicable: an expert's first operations on a row of x are not linear"
        matrices = {user.operands[0] for user in users}
        if any(_is_own(matrix) for matrix in matrices):
            return "not applicable: every expert multiplies rows of x by a matrix of its own"
        narrow = sum(ir.RankedTensorType(matrix.type).get_dim_size(0) for matrix in matrices)
        if narrow >= width:
            return f"not applicable: what experts make of a row alike has {narrow} elements, the row {width}"
    return (
        f"all experts multiply by the same matrix first: rows of {narrow} elements could travel, not {width}, "
        "if the layer made them before its experts"
    )


def _is_own(matrix: ir.Value) -> bool:
    return isinstance(matrix.owner, ir.Operation | ir.OpView) and matrix.owner.operation.name == "moe.own"
