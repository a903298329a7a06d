"""Which tiles a product is cut into: by what was measured of it, else by what `cost` predicts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from moec.backends.base import unsupported
from moec.backends.cuda.arch import Arch
from moec.backends.cuda.matmul import cost, measured
from moec.backends.cuda.matmul.measured import Measured
from moec.backends.cuda.matmul.problem import Problem
from moec.backends.cuda.matmul.tile import CodedWarpgroupTile, WarpgroupTile, WarpTile

_FEW_ROWS = 16
_FEW_BYTES = 80 * 1024
"""Two blocks with so much shared memory run on a multiprocessor, but for those with 100 KiB of it."""
_LEAST_STAGES = 3
_MOST_STAGES = 8
_TYPICAL_ROWS = (256.0, 1024.0, 4096.0)
"""Rows of an expert for which tiles for many rows are compared."""

_FEW_TOKENS = (32.0, 128.0, 512.0)
"""Rows of a product of all tokens for which tiles beside those for few rows an expert are compared."""

_NOTABLE = 0.97
"""A smaller difference of predicted times decides nothing."""

_BYTES, _PACKED = 2.5, 1.5
"""Instructions that make a code of a byte, or of fewer bits, a float in registers, with what loads it."""

_WIDENED = {8: 0.25, 4: 1.5, 2: 2.25}
"""The same where products are those of whole numbers of a byte, by a code's bits."""

DECODE = 16
"""Calls of at most so many tokens may have kernels of their own."""
_MULTIPROCESSORS, _MEMORY, _LATENCY = 132, 3.3e12, 1.6e-6
"""What is supposed of every device, bytes a second and seconds: so many bytes must be on their way (Little's law)."""
_LAUNCH = 2e-6
"""Seconds that one more kernel costs."""
_LEAST_STEPS = 4
"""Of a block that shares the inner dimension with others."""
_DECODE_STAGES = 16

ManyTile = CodedWarpgroupTile | WarpgroupTile | WarpTile
Tile = TypeVar("Tile")


def few_rows(of: Problem) -> WarpTile:
    """For few rows an expert: bound by the bytes of the weights, so narrow tiles, to have many, and a deep ring."""
    width = 64 if of.transposed else max(32, 64 // of.products // 32 * 32)
    tile = _of_warp(of, _FEW_ROWS, width, 1, 1)
    # codes take fewer bytes, of which as many have to be on their way
    stages = min(
        _MOST_STAGES if of.codes is None else _DECODE_STAGES, (_FEW_BYTES - 4 * of.counters) // tile.stage_bytes
    )
    if stages < _LEAST_STAGES:
        raise unsupported("cuda", of.op, f"{of.products} weights at once of {of.experts} experts")
    return replace(tile, stages=stages)


def few_rows_together(of: Problem, arch: Arch) -> WarpTile:
    """The same beside other products: one of all tokens has as many rows as there are tokens, and taller tiles."""
    few = few_rows(of)
    if of.offsets is not None:
        return few
    device, fitting = cost.DEVICES[arch.name], [few]
    for rows in (32, 64):
        tile = replace(few, rows=rows)
        stages = min(few.stages, _FEW_BYTES // tile.stage_bytes)
        if stages >= _LEAST_STAGES:
            fitting.append(replace(tile, stages=stages))
    return min(fitting, key=lambda tile: sum(cost.seconds(of, tile, device, rows) / rows for rows in _FEW_TOKENS))


@dataclass(frozen=True)
class Decode:
    """How a product of very few rows is cut: `splits` blocks share the inner dimension of each tile."""

    tile: WarpTile
    splits: int


def very_few_rows(of: Problem, arch: Arch) -> Decode:
    """For calls of at most `DECODE` tokens: as `few_rows`, but where that keeps too few bytes on their way.

    A token has `per_token` experts, so that there are at least as many tiles times their blocks of columns, whatever
    else is chosen.  Where these leave multiprocessors without work, tiles are narrower, or several blocks share one.
    """
    candidates = decode_candidates(of)
    # products that share a launch have tiles of their own, which nothing was measured of
    entry = measured.found(of, arch.name, measured.DECODE) if of.alone else None
    if entry is not None:
        return _named(entry, candidates, lambda one: (one.tile.width, one.splits))
    best = min(candidates, key=lambda one: decode_seconds(of, one))
    simple = decode_seconds(of, candidates[0])
    return best if decode_seconds(of, best) < _NOTABLE * simple else candidates[0]


def decode_candidates(of: Problem) -> list[Decode]:
    """How such a product may be cut; the first is that of `few_rows`.

    Products that share a launch with others have blocks of one size and a tile each.
    """
    few = few_rows(of)
    if of.transposed or of.segments > 1:
        return [Decode(few, 1)]
    if not of.alone:
        return [Decode(tile, 1) for tile in (few, *_narrower(of, few)) if tile.threads == few.threads]
    steps = -(-of.inner // few.depth)
    return [
        Decode(tile, splits)
        for tile in (few, *_narrower(of, few))
        for splits in range(1, 17)
        if steps % splits == 0 and (splits == 1 or steps // splits >= _LEAST_STEPS)
    ]


def decode_seconds(of: Problem, how: Decode) -> float:
    """Predicted time for a call of one token: that of reading its experts' weights, and of what else is launched."""
    weights = of.per_token * of.columns * of.inner * how.tile.weight_bytes / how.tile.depth
    return weights / (_MEMORY * in_flight(of, how)) + (_LAUNCH if how.splits > 1 else 0.0)


def in_flight(of: Problem, how: Decode) -> float:
    """Which share of the memory's rate the bytes allow that a call of one token has on their way, at most 1."""
    tile = how.tile
    blocks = min(of.per_token * -(-of.columns // tile.width) * how.splits, 2 * _MULTIPROCESSORS)
    ahead = min(tile.stages - 1, -(-of.inner // tile.depth) // how.splits)
    return min(1.0, blocks * ahead * tile.width * tile.weight_bytes / (_LATENCY * _MEMORY))


def _narrower(of: Problem, few: WarpTile) -> list[WarpTile]:
    """The same with half and a quarter of the columns, but 16 at least, and more stages instead."""
    found = []
    for width in (few.width // 2, few.width // 4):
        if width >= 16:
            tile = replace(few, width=width, across=min(few.across, width // 8))
            stages = min(_DECODE_STAGES, (_FEW_BYTES - 4 * of.counters) // tile.stage_bytes)
            found.append(replace(tile, stages=stages))
    return found


def many_rows(of: Problem, arch: Arch) -> ManyTile:
    """For many rows an expert: 128 rows by up to 256 columns of all weights together; of codes on `sm_90a` up to 256
    rows by 128 columns."""
    return _fastest(of, arch, _of_many(of, arch))


def _of_many(of: Problem, arch: Arch) -> Sequence[ManyTile]:
    if not arch.wgmma:
        return _of_warps(of)
    if of.codes is None:
        return _of_warpgroups(of)
    if of.products > 2:  # three weights have too many registers
        return _of_warps(of)
    # sums of few whole numbers take longer to be scaled than made, and warps are better at it
    by_warps = of.rounded and of.grouped and of.scale_rows(of.depth) > 1
    return _of_warps(of) if by_warps else _of_coded_warpgroups(of)


def _of_coded_warpgroups(of: Problem) -> list[CodedWarpgroupTile]:
    if of.rounded:
        decoding = _WIDENED[of.bits]
    else:
        decoding = _PACKED if of.bits < 8 else _BYTES
    scales = of.scale_bytes(of.depth), of.scale_rows(of.depth)
    # of those that are about as fast the last: fewer rows ask the cache for more, more leave more of a tile empty
    most = 128 if of.grouped else 256  # scales of groups ask for sums of their own
    return [
        CodedWarpgroupTile(of.products, rows, _LEAST_STAGES, of.bits, decoding, *scales, of.depth)
        for rows in (32, 64, 256, 192, 128)
        if rows * of.products <= most
    ]


def _of_warpgroups(of: Problem) -> list[WarpgroupTile]:
    unit = 64 if of.transposed else 8
    widths = [width for width in range(unit, 257, unit) if width * of.products <= 256]
    return [WarpgroupTile(of.products, width, _LEAST_STAGES) for width in widths]


def _of_warps(of: Problem) -> list[WarpTile]:
    most = 128 if of.grouped or of.bits < 8 else 256  # scales of groups and packed codes ask for more registers
    widths = [w for w in (32, 64, 128, 256) if w * of.products <= most and (w > 32 or not of.transposed)]
    return [_of_warp(of, 128, width, _LEAST_STAGES, 2) for width in widths]


def _of_warp(of: Problem, rows: int, width: int, stages: int, down: int) -> WarpTile:
    scales = of.scale_bytes(64), of.scale_rows(64)
    return WarpTile(of.products, rows, width, stages, down, 4, of.bits, *scales, of.depth)


def most_tokens_of_few_rows(products: Sequence[tuple[Problem, WarpTile, ManyTile]], arch: Arch) -> int:
    """The number of tokens from which on tiles for many rows are predicted to be the faster ones.

    products  of one launch, each with its tiles for few and for many rows

    Experts have the same number of rows in this comparison, but for those that all tokens choose; what they have is
    known on the device only.
    """
    device = cost.DEVICES[arch.name]
    routed = [of for of, _, _ in products if of.offsets is not None] or [of for of, _, _ in products]
    experts, per_token = sum(of.experts for of in routed), routed[0].per_token
    for rows in range(1, 128):
        each = [rows if of in routed else rows * experts / per_token for of, _, _ in products]
        few = sum(cost.seconds(of, tile, device, n) for n, (of, tile, _) in zip(each, products, strict=True))
        many = sum(cost.seconds(of, tile, device, n) for n, (of, _, tile) in zip(each, products, strict=True))
        if many < _NOTABLE * few:
            return max(1, rows * experts // per_token)
    return 128 * experts // per_token


def many_candidates(of: Problem, arch: Arch) -> list[ManyTile]:
    """Tiles for many rows, with as many stages as fit; those that are predicted to be the fastest come first."""
    found = _fitting(of, arch, _of_many(of, arch))
    return sorted(found, key=lambda tile: _typical_seconds(of, arch, tile))


def _fastest(of: Problem, arch: Arch, tiles: Sequence[ManyTile]) -> ManyTile:
    """The tile that was measured, or that with the least predicted time over all typical numbers of rows."""
    fitting = _fitting(of, arch, tiles)
    entry = measured.found(of, arch.name, measured.MANY)
    if entry is not None:
        return _named(entry, fitting, lambda tile: (tile.size, 1))
    times = [_typical_seconds(of, arch, tile) for tile in fitting]
    # A wider tile asks the cache for less: of tiles that are about as fast the last, which is the widest of floats.
    return [tile for tile, time in zip(fitting, times, strict=True) if _NOTABLE * time <= min(times)][-1]


def _fitting(of: Problem, arch: Arch, tiles: Sequence[ManyTile]) -> list[ManyTile]:
    """Those that a block has room for, with as many stages as fit.  Raises Unsupported where there is none."""
    room = arch.shared_bytes - 4 * of.counters
    found = [replace(tile, stages=min(_MOST_STAGES, _stages(tile, room))) for tile in tiles]
    fitting = [tile for tile in found if tile.stages >= _LEAST_STAGES]
    if not fitting:
        raise unsupported("cuda", of.op, f"{of.products} weights at once of {of.experts} experts")
    return fitting


def _typical_seconds(of: Problem, arch: Arch, tile: ManyTile) -> float:
    device = cost.DEVICES[arch.name]
    return sum(cost.seconds(of, tile, device, rows) / rows for rows in _TYPICAL_ROWS)


def _named(entry: Measured, candidates: Sequence[Tile], name: Callable[[Tile], tuple[int, int]]) -> Tile:
    """The candidate that a file's entry names.  Raises DiagnosticError (E0713) where it is none."""
    for one in candidates:
        if name(one) == (entry.width, entry.splits):
            return one
    raise measured.misfit(entry)


def _stages(tile: ManyTile, room: int) -> int:
    """How many stages fit into shared memory, each with two barriers."""
    return room // (tile.stage_bytes + 16)
