"""Kernels of row programs: a warp runs that of a token."""

from __future__ import annotations

from collections.abc import Sequence

from torch_mlir import ir

from moec.backends.base import unsupported
from moec.backends.cpu.parameters import is_parameter
from moec.backends.cpu.rowcount import rows_per_token
from moec.backends.cuda import expressions
from moec.backends.cuda.arch import Arch
from moec.backends.cuda.kernel import Kernel, Scope, TensorPointer, TokenGrid, Tokens
from moec.backends.cuda.rowprogram import Program
from moec.backends.cuda.rowvalues import Code, Value, count_of

INCLUDES = ("moec/primitives.cuh", "moec/scalar.cuh", "moec/rows.cuh")
_WARPS = 8
_SHARED = 48 * 1024
"""A block has fewer warps rather than more shared memory than this."""


def map_rows(op: ir.Operation, scope: Scope, arch: Arch) -> tuple[Kernel, ...]:
    """The kernel of a `moe.map`, over tokens or over rows in plan order.  Raises Unsupported as `rows_kernel` does.

    Rows behind the last one of a plan are worked on, too, where there is room for them; nobody reads those.
    """
    return (rows_kernel(op, scope, arch, "map", []),)


def rows_kernel(op: ir.Operation, scope: Scope, arch: Arch, wish: str, own: Sequence[ir.Value]) -> Kernel:
    """The kernel of a row program whose arguments are this token's rows of `own`.

    Raises Unsupported for what a row program cannot compute.
    """
    block = op.regions[0].blocks[0]
    many = rows_per_token(op.operands[0])
    name = scope.name(wish)
    inputs = list(dict.fromkeys([*own, *captured(block)]))
    pointers = {value: f"in{n}" for n, value in enumerate(inputs)}
    code = Code()
    program = Program(code, pointers, "token", name)
    yielded = program.run(block, *(pointers[value] for value in own))
    store_rows(code, yielded)
    scratch = code.scratch_bytes
    if scratch > arch.shared_bytes:
        raise unsupported("cuda", op, f"its row program needs {scratch} bytes of shared memory for a token")
    warps = max(1, min(_WARPS, _SHARED // max(scratch, 1)))
    given = [TensorPointer(v, f"const {expressions.memory_type(op, v.type)}*") for v in inputs]
    made = [TensorPointer(v, f"{expressions.memory_type(op, v.type)}*") for v in op.results]
    parameters = [f"{p.ctype} MOEC_RESTRICT in{n}" for n, p in enumerate(given)]
    parameters += [f"{p.ctype} MOEC_RESTRICT out{n}" for n, p in enumerate(made)]
    shared = ["  MOEC_SHARED(shared);", f"  moec::u8* scratch = shared + moec::warp_index() * {scratch};"]
    # A block has whole tokens, and each of its warps their rows by turns.
    tokens = max(1, warps // many)
    body = code.lines
    if many == 1:
        head = [
            f"  const int token = moec::block_index() * {warps} + moec::warp_index();",
            "  if (token >= tokens) return;",
        ]
    else:
        head = [
            f"  const int end = (moec::block_index() + 1) * {tokens};",
            f"  const int rows = (end < tokens ? end : tokens) * {many};",
            f"  for (int token = moec::block_index() * {tokens * many} + moec::warp_index(); token < rows; "
            f"token += {warps}) {{",
        ]
        body = [*("  " + line for line in body), "  }"]
    source = "\n".join(
        [
            *program.constants,
            f"MOEC_KERNEL({32 * warps}, 1) {name}({', '.join([*parameters, 'int tokens'])}) {{",
            "  const int lane = moec::lane_index();",
            *(shared if scratch else []),
            *head,
            *body,
            "}\n",
        ]
    )
    arguments = (*given, *made, Tokens())
    return Kernel(name, source, INCLUDES, 32 * warps, warps * scratch, TokenGrid(tokens), arguments)


def store_rows(code: Code, values: Sequence[Value]) -> None:
    """Prints stores of what a program yields for `token` to `out0`, ...."""
    for n, value in enumerate(values):
        _store_row(code, value, f"out{n} + (moec::i64)token * {count_of(value.shape)}")


def _store_row(code: Code, value: Value, target: str) -> None:
    count = count_of(value.shape)
    if count == 1:
        code.line(f"if (lane == 0) moec::store({target}, {code.element(value, '0', '0')});")
        return
    guard = "" if count % 32 == 0 else f"if ({{}} < {count}) "
    code.each(
        value.shape,
        lambda r, i: code.line(f"{guard.format(i)}moec::store({target} + {i}, {code.element(value, r, i)});"),
    )


def captured(block: ir.Block) -> list[ir.Value]:
    """The tensors of tokens and the parameters that a region uses from outside, without order or repetition."""
    found: dict[ir.Value, None] = {}
    for op in block.operations:
        operation = op.operation
        for operand in operation.operands:
            if operation.name == "moe.row" or is_parameter(operand):
                found[operand] = None
        for region in operation.regions:
            for inner in region:
                found.update(dict.fromkeys(captured(inner)))
    return list(found)
