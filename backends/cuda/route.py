"""moe.route, and the matmul of its logits: separate kernels for few tokens, one for many.

Of many tokens, each block of a fixed grid has a share. It multiplies some tokens' rows at a time by the whole router,
keeps the logits in shared memory, runs the tokens' programs on them, and counts the chosen experts of its share, which
sorting the slots by expert begins with.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from torch_mlir import ir

from moec.backends.cuda import expressions
from moec.backends.cuda.arch import Arch
from moec.backends.cuda.kernel import Argument, BufferPointer, FixedGrid, Kernel, Scope, TensorPointer, Tokens
from moec.backends.cuda.matmul import emit
from moec.backends.cuda.planned import BLOCKS, counted_slots, counts_of_blocks
from moec.backends.cuda.rowkernel import INCLUDES, captured, rows_kernel, store_rows
from moec.backends.cuda.rowprogram import Program
from moec.backends.cuda.rowvalues import Code, Memory

FEW = 2048
"""Calls of fewer tokens have a kernel for the logits and one for the route."""
_MANY = 16384
_ROWS = {FEW: 64, _MANY: 128}
_WARPS = 8


@dataclass(frozen=True)
class Fused:
    """A route with the matmul of its logits."""

    route: ir.Operation
    matmul: ir.Operation
    columns: int
    inner: int

    def shared_bytes(self, rows: int) -> int:
        """Of a tile of logits, as `LogitTile` has it in `moec/logits.cuh`."""
        across = 8 * 32 // rows
        padded = -(-self.columns // (16 * across)) * 16 * across
        return max(2 * (rows + 3 * padded) * 80, rows * (padded + 4) * 4)


def fused(route: ir.Operation, arch: Arch) -> Fused | None:
    """What a `moe.route` is fused with for many tokens: a product of bf16 rows and f32 weights, at most 256 columns."""
    (x,) = route.operands
    reads = [op.operation for op in route.regions[0].blocks[0].operations if op.operation.name == "moe.row"]
    made = [read.operands[0].owner for read in reads]
    products = [o.operation for o in made if not isinstance(o, ir.Block) and o.operation.name == "moe.matmul"]
    if not products:
        return None
    matmul, view = products[0], products[0].opview
    (columns, inner) = ir.RankedTensorType(view.weights[0].type).shape[1:]
    body = [op.operation for op in matmul.regions[0].blocks[0].operations]
    found = Fused(route, matmul, columns, inner)
    if (
        view.lhs != x
        or len(view.weights) != 1
        or view.transposed
        or len(body) != 1
        or len(matmul.results) != 1
        or expressions.element_of(x.type) != "bf16"
        or expressions.element_of(view.weights[0].type) != "f32"
        or inner % 8
        or columns > 256
        or max(map(found.shared_bytes, _ROWS.values())) + 16 * 1024 > arch.shared_bytes
    ):
        return None
    return found


def matmul(op: ir.Operation, scope: Scope, arch: Arch) -> tuple[Kernel, ...]:
    """The kernels of a `moe.matmul`; where it makes logits that a route is fused with, only those for few tokens."""
    made = emit.matmul(op, scope, arch)
    users = [use.owner.operation for result in op.results for use in result.uses]
    routes = [user.parent for user in users if user.name == "moe.row" and user.parent.name == "moe.route"]
    fusions = [fused(parent, arch) for parent in routes]
    if not any(fusion is not None and fusion.matmul == op for fusion in fusions):
        return made
    return tuple(_below(kernel, FEW) for kernel in made if kernel.tokens[0] < FEW)


def route(op: ir.Operation, scope: Scope, arch: Arch) -> tuple[Kernel, ...]:
    """The kernels of a `moe.route`.  Raises Unsupported for what a row program cannot compute."""
    alone = rows_kernel(op, scope, arch, "route", [op.operands[0]])
    fusion = fused(op, arch)
    if fusion is None:
        return (alone,)
    limits = [*_ROWS, None]
    many = [
        _kernel(fusion, scope, arch, rows, (least, most))
        for (least, rows), most in zip(_ROWS.items(), limits[1:], strict=True)
    ]
    return (_below(alone, FEW), *many)


def _below(kernel: Kernel, limit: int) -> Kernel:
    """The kernel for calls of fewer tokens than `limit` alone."""
    least, most = kernel.tokens
    return dataclasses.replace(kernel, tokens=(least, limit if most is None else min(most, limit)))


def _kernel(fusion: Fused, scope: Scope, arch: Arch, rows: int, tokens: tuple[int, int | None]) -> Kernel:
    op = fusion.route
    view: Any = fusion.matmul.opview
    logits = fusion.matmul.results[0]
    block = op.regions[0].blocks[0]
    name = scope.name(f"router{rows}")
    inputs = [value for value in dict.fromkeys([op.operands[0], *captured(block)]) if value != logits]
    pointers = {value: f"in{n}" for n, value in enumerate(inputs)}
    code = Code()
    code.indent(2)
    given = Memory((fusion.columns,), "f32", lambda i: f"(float)logits[row * Tile::pitch + {i}]")
    program = Program(code, pointers, "token", name, {logits: given})
    index, weight = program.run(block, *(pointers[value] for value in op.operands))
    store_rows(code, [index, weight])
    slots = counted_slots(op.results[0])
    if slots is not None:
        guard = f"{{}} < {slots.per_token} && " if slots.per_token % 32 else ""
        code.each(
            index.shape,
            lambda r, i: code.line(
                f"if ({guard.format(i)}moec::as_unsigned({code.element(index, r, i)}) < {slots.experts}) "
                f"moec::atomic_add(chosen, {code.element(index, r, i)}, 1);"
            ),
        )
    tile, scratch = fusion.shared_bytes(rows), code.scratch_bytes
    arguments: dict[str, Argument] = {
        **{f"in{n}": TensorPointer(v, f"const {expressions.memory_type(op, v.type)}*") for n, v in enumerate(inputs)},
        "router": TensorPointer(view.weights[0], "const float*"),
        "out0": TensorPointer(op.results[0], "int*"),
        "out1": TensorPointer(op.results[1], "float*"),
    }
    kept = any(use.owner.operation.parent != op for use in logits.uses)
    if kept:
        arguments["logits_out"] = TensorPointer(logits, "float*")
    if slots is not None:
        arguments["counts"] = BufferPointer(counts_of_blocks(scope, op.results[0], slots.experts), "int*")
    parameters = ", ".join(
        [*(f"{a.ctype} MOEC_RESTRICT {called}" for called, a in arguments.items() if not isinstance(a, Tokens))]
    )
    experts = slots.experts if slots is not None else 0
    counting = [
        f"  const moec::Shared<int> chosen = moec::shared_array<int>(shared + {tile + _WARPS * scratch});",
        f"  for (int i = moec::thread_index(); i < {experts}; i += 256) chosen[i] = 0;",
    ]
    counted = [
        "  moec::sync_block();",
        f"  for (int i = moec::thread_index(); i < {experts}; i += 256)",
        f"    counts[moec::block_index() * {experts} + i] = chosen[i];",
    ]
    keep = [
        f"    for (int i = moec::thread_index(); i < {rows * fusion.columns}; i += 256) {{",
        f"      const int token = first + i / {fusion.columns};",
        "      if (token < share.last)",
        f"        logits_out[(moec::i64)token * {fusion.columns} + i % {fusion.columns}] =",
        f"            logits[i / {fusion.columns} * Tile::pitch + i % {fusion.columns}];",
        "    }",
    ]
    source = "\n".join(
        [
            *program.constants,
            f"MOEC_KERNEL(256, 1) {name}({parameters}, int tokens) {{",
            "  MOEC_SHARED(shared);",
            f"  using Tile = moec::LogitTile<{rows}, {fusion.columns}, {fusion.inner}>;",
            f'  static_assert(Tile::shared_bytes == {tile}, "the size that the launch has room for");',
            "  const int lane = moec::lane_index();",
            f"  moec::u8* scratch = shared + {tile} + moec::warp_index() * {scratch};" if scratch else "",
            *(counting if slots is not None else []),
            "  const moec::Range share = moec::share_of(tokens, moec::block_index(), moec::grid_blocks());",
            f"  for (int first = share.first; first < share.last; first += {rows}) {{",
            "    const moec::Shared<float> logits =",
            "        moec::multiply_logits<Tile>(in0, router, first, share.last, shared);",
            *(keep if kept else []),
            f"    for (int row = moec::warp_index(); row < {rows}; row += {_WARPS}) {{",
            "      const int token = first + row;",
            "      if (token >= share.last) break;",
            *code.lines,
            "    }",
            "  }",
            *(counted if slots is not None else []),
            "}\n",
        ]
    )
    shared = tile + _WARPS * scratch + 4 * experts
    includes = (*INCLUDES, "moec/plan.cuh", "moec/logits.cuh")
    return Kernel(name, source, includes, 256, shared, FixedGrid(BLOCKS), (*arguments.values(), Tokens()), tokens)
