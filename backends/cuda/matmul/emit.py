"""The emitters of `moe.matmul`, `moe.grouped_matmul` and the product of `moe.grouped_matmul_combine`."""

from __future__ import annotations

from dataclasses import replace

from torch_mlir import ir

from moec.backends.base import unsupported
from moec.backends.cuda.arch import Arch
from moec.backends.cuda.kernel import Buffer, Kernel, Scope
from moec.backends.cuda.matmul import coded, divided, lanes, launch, measured, router, tiles, warpgroups, warps
from moec.backends.cuda.matmul.problem import Problem, epilogue, problem
from moec.backends.cuda.matmul.tile import CodedWarpgroupTile, WarpgroupTile, WarpTile


def matmul(op: ir.Operation, scope: Scope, arch: Arch) -> tuple[Kernel, ...]:
    """The kernels of `moe.matmul` or `moe.grouped_matmul`.  Raises Unsupported."""
    return _kernels(problem(op), scope, arch, None, "f32")


def product(op: ir.Operation, scope: Scope, arch: Arch, rows: Buffer, rows_type: str) -> tuple[Kernel, ...]:
    """The kernels of the product of a `moe.grouped_matmul_combine`: its epilogue's values, in plan order.

    rows  gets [T * slots_per_token, N] elements of `rows_type`.  Raises Unsupported.
    """
    return _kernels(problem(op), scope, arch, rows, rows_type)


def check(of: Problem) -> None:
    """Raises Unsupported for a product that tensor cores cannot make."""
    if of.codes is not None:
        least = 16 if of.bits == 8 else 8
        if of.inner % least:
            raise unsupported("cuda", of.op, f"rows of {of.inner} elements beside codes: no multiple of {least}")
        if of.rounded and not of.grouped and of.inner * 127 * 128 >= 2**31:
            raise unsupported("cuda", of.op, f"sums of {of.inner} products of integers do not fit into 32 bits")
        return
    if of.type != of.lhs_type or of.type not in ("bf16", "f16"):
        why = f"rows of {of.lhs_type} and weights of {of.type}"
        raise unsupported("cuda", of.op, why, "give both one dtype, or these weights f32")
    if of.inner % 8 or (of.transposed and of.columns % 8):
        raise unsupported(
            "cuda", of.op, f"rows of {of.columns if of.inner % 8 == 0 else of.inner} elements: no multiple of 16 bytes"
        )


def of_many(
    of: Problem, tile: tiles.ManyTile, scope: Scope, wish: str, rows: Buffer | None, rows_type: str
) -> launch.Body:
    """What the kernel for many rows does."""
    match tile:
        case CodedWarpgroupTile():
            return coded.body(of, tile, scope, wish, rows, rows_type)
        case WarpgroupTile():
            return warpgroups.body(of, tile, scope, wish, rows, rows_type)
        case WarpTile():
            return warps.body(of, tile, 1, scope, epilogue(of, scope, wish, rows, rows_type))


def _kernels(of: Problem, scope: Scope, arch: Arch, rows: Buffer | None, rows_type: str) -> tuple[Kernel, ...]:
    if of.codes is not None and (of.segments > 1 or of.transposed):
        raise unsupported("cuda", of.op, "quantised weights that are put together, or transposed")
    name = "product" if of.codes is None else f"product_{of.codes.format}"
    if of.in_f32:
        return _in_f32(of, scope, rows, rows_type, f"{name}_f32")
    check(of)
    few, many = tiles.few_rows(of), tiles.many_rows(of, arch)
    limit = tiles.most_tokens_of_few_rows([(of, few, many)], arch)
    found = _of_few(of, few, scope, arch, rows, rows_type, limit, name)
    last = launch.alone(of_many(of, many, scope, name, rows, rows_type), scope.name(name), (limit, None))
    return (*found, _noted(last, of, arch, measured.MANY))


def _of_few(
    of: Problem, few: WarpTile, scope: Scope, arch: Arch, rows: Buffer | None, rows_type: str, limit: int, name: str
) -> list[Kernel]:
    """The kernels for fewer than `limit` tokens."""
    found = _decoding(of, few, scope, arch, rows, rows_type, limit, name)
    least = found[-1].tokens[1] or 0 if found else 0
    if least < limit:
        found.append(warps.kernel(of, few, 2, scope, f"{name}_few", rows, rows_type, (least, limit)))
    return found


def _decoding(
    of: Problem, few: WarpTile, scope: Scope, arch: Arch, rows: Buffer | None, rows_type: str, limit: int, name: str
) -> list[Kernel]:
    """The kernels for the fewest tokens; none where those for few do as well."""
    how = tiles.very_few_rows(of, arch)
    tokens = (0, min(tiles.DECODE + 1, limit))
    made: tuple[Kernel, ...] = ()
    if how.splits > 1:
        made = divided.kernels(of, how, scope, rows, rows_type, tokens, name)
    elif how.tile != few:
        made = (warps.kernel(of, how.tile, 2, scope, f"{name}_decode", rows, rows_type, tokens),)
    return [_noted(one, of, arch, measured.DECODE) for one in made]


def _noted(kernel: Kernel, of: Problem, arch: Arch, regime: str) -> Kernel:
    """The kernel with a word, in its source, on where its tile comes from."""
    origin = measured.origin(of, arch.name, regime)
    return replace(kernel, source=f"// {kernel.name}: {origin}\n{kernel.source}")


def _in_f32(of: Problem, scope: Scope, rows: Buffer | None, rows_type: str, name: str) -> tuple[Kernel, ...]:
    if of.codes is not None:
        return (lanes.kernel(of, scope, name, rows, rows_type, (0, None)),)
    limit = router.MOST_TOKENS_OF_DOTS + 1 if router.can_dot(of) else 0
    few = (router.dots_kernel(of, scope, rows, rows_type, (0, limit)),) if limit else ()
    if router.can_split(of):
        return (*few, router.split_kernel(of, scope, rows, rows_type, (limit, None)))
    return (*few, lanes.kernel(of, scope, name, rows, rows_type, (limit, None)))
