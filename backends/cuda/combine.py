"""moe.grouped_matmul_combine: a product whose rows go to memory, and the sum of each token's; moe.sum_rows: that sum.

The rows are rounded to the type of the product's operands in between: their sum has other bits than that of rows that
stay f32, always the same ones.
"""

from __future__ import annotations

from typing import Any

from torch_mlir import ir

from moec.backends.cuda import expressions
from moec.backends.cuda.arch import Arch
from moec.backends.cuda.finish import finish
from moec.backends.cuda.kernel import BufferPointer, Kernel, Scope, TensorPointer, TokenGrid, Tokens
from moec.backends.cuda.matmul.emit import product
from moec.backends.cuda.planned import rows_of_slots
from moec.backends.cuda.rowcodes import before_rounding

INCLUDES = ("moec/primitives.cuh", "moec/scalar.cuh", "moec/combine.cuh")
_THREADS = 256


def grouped_matmul_combine(op: ir.Operation, scope: Scope, arch: Arch) -> tuple[Kernel, ...]:
    """The kernels of a `moe.grouped_matmul_combine`.  Raises Unsupported where its product cannot be made."""
    view: Any = op.opview
    per_token = int(ir.IntegerAttr(view.slots_per_token).value)
    columns = int(ir.RankedTensorType(view.out.type).get_dim_size(1))
    rows_type = expressions.element_of(before_rounding(view.lhs).type)
    width = {"f32": 4, "bf16": 2, "f16": 2}[rows_type]
    rows = scope.buffer(view.out, "rows", per_token=per_token * columns * width, fixed=0)
    made = product(op, scope, arch, rows, rows_type)
    memory = f"const {expressions.MEMORY[rows_type]}*"
    return (*made, _combine(op, scope, BufferPointer(rows, memory), rows_type))


def sum_rows(op: ir.Operation, scope: Scope, arch: Arch) -> tuple[Kernel, ...]:
    """The kernel of a `moe.sum_rows`."""
    rows: ir.Value = op.operands[0]
    memory = expressions.memory_type(op, rows.type)
    return (_combine(op, scope, TensorPointer(rows, f"const {memory}*"), expressions.element_of(rows.type)),)


def _combine(op: ir.Operation, scope: Scope, rows: BufferPointer | TensorPointer, rows_type: str) -> Kernel:
    """The kernel that adds up rows, elements of `rows_type`, as the finish of an operation and its plan say."""
    view: Any = op.opview
    per_token = int(ir.IntegerAttr(view.slots_per_token).value)
    columns = int(ir.RankedTensorType(view.out.type).get_dim_size(1))
    name = scope.name("combine")
    ends = finish(view.finish, scope, "combine")
    memory, out = expressions.MEMORY[rows_type], expressions.MEMORY[ends.result]
    lanes = min(_THREADS, -(-columns // (8 * 32)) * 32)
    group = max(1, _THREADS // lanes)
    parameters = [
        f"const {memory}* MOEC_RESTRICT rows", "const int* MOEC_RESTRICT places", f"{out}* MOEC_RESTRICT out",
        *ends.parameters, "int tokens",
    ]  # fmt: skip
    source = "\n".join(
        [
            ends.source,
            f"MOEC_KERNEL({lanes * group}, 1) {name}({', '.join(parameters)}) {{",
            "  MOEC_SHARED(shared);",
            f"  moec::combine<{memory}, {out}, {columns}, {per_token}, {lanes}, {group}>(",
            f"      rows, places, out, tokens, {ends.name}{ends.initial}, shared);",
            "}\n",
        ]
    )
    arguments = (
        rows,
        BufferPointer(rows_of_slots(scope, view.offsets), "const int*"),
        TensorPointer(view.out, f"{out}*"),
        *ends.arguments,
        Tokens(),
    )
    shared = 4 * per_token * group
    return Kernel(name, source, INCLUDES, lanes * group, shared, TokenGrid(group), arguments)
