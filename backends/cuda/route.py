"""moe.route, with the plan of few tokens, and with the matmul of the logits of many.

Of many tokens, each block of a fixed grid has a share. It multiplies some tokens' rows at a time by the whole router,
keeps the logits in shared memory, runs the tokens' programs on them, and counts the chosen experts of its share, which
sorting the slots by expert begins with.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from torch_mlir import ir

from moec.backends.cuda import expressions
from moec.backends.cuda.arch import Arch
from moec.backends.cuda.fusion import DECODE, FEW, TILES, WARPS, Fused, fused, plan_of
from moec.backends.cuda.kernel import BufferPointer, FixedGrid, Kernel, Scope, TensorPointer, Tokens
from moec.backends.cuda.matmul import joined
from moec.backends.cuda.parameters import parameters
from moec.backends.cuda.plan import sort_of
from moec.backends.cuda.planned import BLOCKS, counted_slots, counts_of_blocks
from moec.backends.cuda.rowkernel import INCLUDES, print_program, rows_kernel, warps_of
from moec.backends.cuda.rowvalues import Code, Value

_WARPS_ALONE = 32


def matmul(op: ir.Operation, scope: Scope, arch: Arch) -> tuple[Kernel, ...]:
    """The kernels of a `moe.matmul`; where it makes logits that a route is fused with, only those for few tokens."""
    made = joined.matmul(op, scope, arch)
    users = [use.owner.operation for result in op.results for use in result.uses]
    routes = [user.parent for user in users if user.name == "moe.row" and user.parent.name == "moe.route"]
    fusions = [fused(parent, arch) for parent in routes]
    if not any(fusion is not None and fusion.matmul == op for fusion in fusions):
        return made
    return tuple(_below(kernel, FEW) for kernel in made if kernel.tokens[0] < FEW)


def route(op: ir.Operation, scope: Scope, arch: Arch) -> tuple[Kernel, ...]:
    """The kernels of a `moe.route`.  Raises Unsupported for what a row program cannot compute."""
    made = [rows_kernel(op, scope, arch, "route", [op.operands[0]])]
    fusion, planned = fused(op, arch), plan_of(op)
    if planned is not None:
        made = [dataclasses.replace(made[0], tokens=(DECODE + 1, None)), _with_plan(op, planned, scope, arch)]
    if fusion is None:
        return tuple(made)
    limits = [*TILES, None]
    many = [
        _with_logits(fusion, scope, rows, (least, most))
        for (least, rows), most in zip(TILES.items(), limits[1:], strict=True)
    ]
    return (*(_below(kernel, FEW) for kernel in made), *many)


def _below(kernel: Kernel, limit: int) -> Kernel:
    """The kernel for calls of fewer tokens than `limit` alone."""
    least, most = kernel.tokens
    return dataclasses.replace(kernel, tokens=(least, limit if most is None else min(most, limit)))


def _with_plan(op: ir.Operation, plan: ir.Operation, scope: Scope, arch: Arch) -> Kernel:
    """One block runs all tokens' programs, and sorts the slots when all are known."""
    name = scope.name("route_plan")
    printed = print_program(op, name, [op.operands[0]], deeper=1)
    sort = sort_of(plan, scope)
    warps = warps_of(op, printed, arch, min(_WARPS_ALONE, sort.warps(_WARPS_ALONE, arch)))
    arguments = {**printed.arguments, **sort.outputs}
    scratch = f"  moec::u8* scratch = shared + moec::warp_index() * {printed.scratch};"
    source = "\n".join(
        [
            *printed.constants,
            f"MOEC_KERNEL({32 * warps}, 1) {name}({parameters(arguments)}) {{",
            "  MOEC_SHARED(shared);",
            "  const int lane = moec::lane_index();",
            *([scratch] if printed.scratch else []),
            f"  for (int token = moec::warp_index(); token < tokens; token += {warps}) {{",
            *printed.lines,
            "  }",
            "  moec::sync_block();",
            *sort.statements("alone", warps, "out0"),
            "}\n",
        ]
    )
    shared = max(warps * printed.scratch, sort.shared_bytes(warps))
    includes = tuple(dict.fromkeys([*INCLUDES, *sort.includes]))
    found = (*arguments.values(), Tokens())
    return Kernel(name, source, includes, 32 * warps, shared, FixedGrid(1), found, (0, DECODE + 1))


def _with_logits(fusion: Fused, scope: Scope, rows: int, tokens: tuple[int, int | None]) -> Kernel:
    """Each block has a share of the tokens, and makes the logits of `rows` of them at a time."""
    op = fusion.route
    view: Any = fusion.matmul.opview
    logits = fusion.logits
    rows_type = expressions.element_of(op.operands[0].type)
    narrow = "" if rows_type == "bf16" else f", {expressions.MEMORY[rows_type]}"
    name = scope.name(f"router{rows}")
    slots = counted_slots(op.results[0])

    def count(code: Code, yielded: Sequence[Value]) -> None:
        if slots is None:
            return
        index = yielded[0]
        guard = f"{{}} < {slots.per_token} && " if slots.per_token % 32 else ""

        def one(r: str, i: str) -> None:
            expert = code.element(index, r, i)
            code.line(f"if ({guard.format(i)}moec::as_unsigned({expert}) < {slots.experts})")
            code.line(f"  moec::atomic_add(chosen, {expert}, 1);")

        code.each(index.shape, one)

    printed = print_program(op, name, [op.operands[0]], deeper=2, given=fusion.given(), after=count)
    tile, experts = fusion.shared_bytes(rows), slots.experts if slots is not None else 0
    shared = tile + WARPS * printed.scratch + 4 * experts
    arguments = {**printed.arguments, "router": TensorPointer(view.weights[0], "const float*")}
    kept = any(use.owner.operation.parent != op for use in logits.uses)
    if kept:
        arguments["logits_out"] = TensorPointer(logits, "float*")
    if slots is not None:
        arguments["counts"] = BufferPointer(counts_of_blocks(scope, op.results[0], experts), "int*")
    counting = [
        f"  const moec::Shared<int> chosen = moec::shared_array<int>(shared + {tile + WARPS * printed.scratch});",
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
    scratch = f"  moec::u8* scratch = shared + {tile} + moec::warp_index() * {printed.scratch};"
    source = "\n".join(
        [
            *printed.constants,
            f"MOEC_KERNEL(256, 1) {name}({parameters(arguments)}) {{",
            "  MOEC_SHARED(shared);",
            f"  using Tile = moec::LogitTile<{rows}, {fusion.columns}, {fusion.inner}{narrow}>;",
            f'  static_assert(Tile::shared_bytes == {tile}, "the size that the launch has room for");',
            "  const int lane = moec::lane_index();",
            *([scratch] if printed.scratch else []),
            *(counting if slots is not None else []),
            "  const moec::Range share = moec::share_of(tokens, moec::block_index(), moec::grid_blocks());",
            f"  for (int first = share.first; first < share.last; first += {rows}) {{",
            "    const moec::Shared<float> logits =",
            "        moec::multiply_logits<Tile>(in0, router, first, share.last, shared);",
            *(keep if kept else []),
            f"    for (int row = moec::warp_index(); row < {rows}; row += {WARPS}) {{",
            "      const int token = first + row;",
            "      if (token >= share.last) break;",
            *printed.lines,
            "    }",
            "  }",
            *(counted if slots is not None else []),
            "}\n",
        ]
    )
    includes = (*INCLUDES, "moec/plan.cuh", "moec/logits.cuh")
    return Kernel(name, source, includes, 256, shared, FixedGrid(BLOCKS), (*arguments.values(), Tokens()), tokens)
