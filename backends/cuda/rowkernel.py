"""Kernels of row programs: a warp runs that of a token."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch_mlir import ir

from moec.backends.base import unsupported
from moec.backends.cpu.parameters import captured
from moec.backends.cpu.rowcount import rows_per_token
from moec.backends.cuda import expressions
from moec.backends.cuda.arch import Arch
from moec.backends.cuda.kernel import Argument, Kernel, Scope, TensorPointer, TokenGrid, Tokens
from moec.backends.cuda.parameters import parameters
from moec.backends.cuda.rowprogram import Program
from moec.backends.cuda.rowvalues import Code, Memory, Value, count_of

INCLUDES = ("moec/primitives.cuh", "moec/scalar.cuh", "moec/rows.cuh")
_WARPS = 8
_SHARED = 48 * 1024
"""A block has fewer warps rather than more shared memory than this."""


def map_rows(op: ir.Operation, scope: Scope, arch: Arch) -> tuple[Kernel, ...]:
    """The kernel of a `moe.map`, over tokens or over rows in plan order.  Raises Unsupported as `rows_kernel` does.

    Rows behind the last one of a plan are worked on, too, where there is room for them; nobody reads those.
    """
    return (rows_kernel(op, scope, arch, "map", []),)


@dataclass(frozen=True)
class Printed:
    """A row program in C++.

    lines      statements for the token `token`, where `lane` and, if `scratch`, the pointer `scratch` are known
    constants  definitions that stand before the kernel
    scratch    bytes of shared memory that a warp needs
    arguments  of the kernel, by the names of its parameters; results are `out0`, ...
    """

    lines: tuple[str, ...]
    constants: tuple[str, ...]
    scratch: int
    arguments: dict[str, Argument]


def print_program(
    op: ir.Operation,
    name: str,
    own: Sequence[ir.Value],
    *,
    deeper: int = 0,
    given: Mapping[ir.Value, Memory] | None = None,
    after: Callable[[Code, Sequence[Value]], None] | None = None,
) -> Printed:
    """The program of `op`, whose arguments are this token's rows of `own`, and stores of what it yields.

    given: this token's rows of tensors that are not in memory.  after: prints more, of what was yielded.
    Raises Unsupported for what a row program cannot compute.
    """
    block, given = op.regions[0].blocks[0], given or {}
    inputs = [value for value in dict.fromkeys([*own, *captured(block)]) if value not in given]
    pointers = {value: f"in{n}" for n, value in enumerate(inputs)}
    code = Code()
    code.indent(deeper)
    program = Program(code, pointers, "token", name, given)
    yielded = program.run(block, *(pointers[value] for value in own))
    for n, value in enumerate(yielded):
        _store_row(code, value, f"out{n} + (moec::i64)token * {count_of(value.shape)}")
    if after is not None:
        after(code, yielded)
    arguments: dict[str, Argument] = {
        called: TensorPointer(v, f"const {expressions.memory_type(op, v.type)}*") for v, called in pointers.items()
    }
    arguments |= {
        f"out{n}": TensorPointer(v, f"{expressions.memory_type(op, v.type)}*") for n, v in enumerate(op.results)
    }
    return Printed(tuple(code.lines), tuple(program.constants), code.scratch_bytes, arguments)


def rows_kernel(op: ir.Operation, scope: Scope, arch: Arch, wish: str, own: Sequence[ir.Value]) -> Kernel:
    """The kernel of a row program alone.  Raises Unsupported for what a row program cannot compute."""
    many = rows_per_token(op.operands[0])
    name = scope.name(wish)
    printed = print_program(op, name, own, deeper=0 if many == 1 else 1)
    warps = warps_of(op, printed, arch, _WARPS)
    # A block has whole tokens, and each of its warps their rows by turns.
    tokens = max(1, warps // many)
    head = [
        f"  const int token = moec::block_index() * {warps} + moec::warp_index();",
        "  if (token >= tokens) return;",
    ]
    if many > 1:
        head = [
            f"  const int end = (moec::block_index() + 1) * {tokens};",
            f"  const int rows = (end < tokens ? end : tokens) * {many};",
            f"  for (int token = moec::block_index() * {tokens * many} + moec::warp_index(); token < rows; "
            f"token += {warps}) {{",
        ]
    shared = ["  MOEC_SHARED(shared);", f"  moec::u8* scratch = shared + moec::warp_index() * {printed.scratch};"]
    source = "\n".join(
        [
            *printed.constants,
            f"MOEC_KERNEL({32 * warps}, 1) {name}({parameters(printed.arguments)}) {{",
            "  const int lane = moec::lane_index();",
            *(shared if printed.scratch else []),
            *head,
            *printed.lines,
            *(["  }"] if many > 1 else []),
            "}\n",
        ]
    )
    arguments = (*printed.arguments.values(), Tokens())
    return Kernel(name, source, INCLUDES, 32 * warps, warps * printed.scratch, TokenGrid(tokens), arguments)


def warps_of(op: ir.Operation, printed: Printed, arch: Arch, most: int) -> int:
    """How many warps of a block have room for their scratch memory, at most.  Raises Unsupported if none has."""
    if printed.scratch > arch.shared_bytes:
        raise unsupported("cuda", op, f"its row program needs {printed.scratch} bytes of shared memory for a token")
    return max(1, min(most, _SHARED // max(printed.scratch, 1)))


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
