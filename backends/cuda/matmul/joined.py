"""The emitters of products that have a launch in common: those whose rows are joined (`moe.join_rows`), of experts that
are stored in different ways, and those that do not wait for each other (`moec.dialect.launches`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch_mlir import ir

from moec.backends.base import unsupported
from moec.backends.cuda.arch import Arch
from moec.backends.cuda.kernel import Kernel, Scope
from moec.backends.cuda.matmul import emit, lanes, launch, measured, tiles, warps
from moec.backends.cuda.matmul.problem import Problem, epilogue, problems
from moec.backends.cuda.matmul.tile import WarpTile
from moec.dialect.joined import join_of
from moec.dialect.launches import launch_of

_Parts = list[tuple[Problem, tiles.ManyTile | None]]
"""Products and their tiles; None: without any, on plain cores."""


def matmul(op: ir.Operation, scope: Scope, arch: Arch) -> tuple[Kernel, ...]:
    """The kernels of `moe.matmul` or `moe.grouped_matmul`; none where those of others do it.  Raises Unsupported."""
    if join_of(op) is not None:
        return ()
    return _launched(op, scope, arch) if len(launch_of(op)) > 1 else emit.matmul(op, scope, arch)


def join_rows(op: ir.Operation, scope: Scope, arch: Arch) -> tuple[Kernel, ...]:
    """The kernels of the products whose rows are joined: one for each range of tokens, or several where their blocks
    have different sizes.  Raises Unsupported."""
    return _launched(op, scope, arch)


def _launched(op: ir.Operation, scope: Scope, arch: Arch) -> tuple[Kernel, ...]:
    """The kernels of a launch, which the last of its products gives."""
    together = launch_of(op)
    if op != together[-1]:
        return ()
    parts = [of for one in together for of in problems(one)]
    if any(of.segments > 1 or of.transposed for of in parts):
        raise unsupported("cuda", op, "products of some experts whose weights are put together, or transposed")
    # those of all tokens have the longest work for a block, and few that know nothing of the plan: they begin
    parts.sort(key=lambda of: of.offsets is not None)
    parts = [replace(of, share=(n, len(parts))) for n, of in enumerate(parts)]
    plain = [of for of in parts if of.in_f32]
    others = [of for of in parts if not of.in_f32]
    made: list[Kernel] = []
    if plain:
        made += _launches([(of, None) for of in plain], 2, scope, "_f32", (0, None))
    if others:
        made += _on_tensor_cores(others, scope, arch)
    return tuple(made)


def _on_tensor_cores(parts: Sequence[Problem], scope: Scope, arch: Arch) -> list[Kernel]:
    for of in parts:
        emit.check(of)
    few = [tiles.few_rows_together(of, arch) for of in parts]
    fewest = [tiles.very_few_rows(of, arch).tile for of in parts]
    many = [tiles.many_rows(of, arch) for of in parts]
    limit = tiles.most_tokens_of_few_rows(list(zip(parts, few, many, strict=True)), arch)
    made, least = [], 0
    if fewest != few:
        least = min(tiles.DECODE + 1, limit)
        made += _launches(list(zip(parts, fewest, strict=True)), 2, scope, "_decode", (0, least))
    if least < limit:
        made += _launches(list(zip(parts, few, strict=True)), 2, scope, "_few", (least, limit))
    last = _launches(list(zip(parts, many, strict=True)), 1, scope, "", (limit, None))
    origins = dict.fromkeys(measured.origin(of, arch.name, measured.MANY) for of in parts)
    note = f"// many rows: {', '.join(origins)}\n"
    return [*made, *(replace(one, source=note + one.source) for one in last)]


def _launches(parts: _Parts, blocks: int, scope: Scope, suffix: str, tokens: tuple[int, int | None]) -> list[Kernel]:
    """One kernel for all products whose blocks have as many threads; `blocks` of them run on a multiprocessor."""
    sizes: dict[int, _Parts] = {}
    for of, tile in parts:
        sizes.setdefault(lanes.THREADS if tile is None else tile.threads, []).append((of, tile))
    made = []
    for alike in sizes.values():
        wish = f"product_{'_'.join(of.type if of.codes is None else of.codes.format for of, _ in alike)}{suffix}"
        shared = [(replace(of, share=(n, len(alike))), tile) for n, (of, tile) in enumerate(alike)]
        bodies = [_body(of, tile, blocks, scope, wish) for of, tile in shared]
        name = scope.name(wish)
        made.append(launch.together(bodies, name, tokens) if len(bodies) > 1 else launch.alone(bodies[0], name, tokens))
    return made


def _body(of: Problem, tile: tiles.ManyTile | None, blocks: int, scope: Scope, wish: str) -> launch.Body:
    if tile is None:
        return lanes.body(of, scope, wish, None, "f32")
    if isinstance(tile, WarpTile):
        return warps.body(of, tile, blocks, scope, epilogue(of, scope, wish, None, "f32"))
    return emit.of_many(of, tile, scope, wish, None, "f32")
