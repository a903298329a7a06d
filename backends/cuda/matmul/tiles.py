"""Which tiles a product is cut into."""

from __future__ import annotations

from moec.backends.base import unsupported
from moec.backends.cuda.matmul.problem import Problem
from moec.backends.cuda.matmul.tile import WarpgroupTile, WarpTile

FEW_ROWS = 16
"""Rows of a tile for few rows an expert."""

_FEW_BYTES = 80 * 1024
_MANY_BYTES = 160 * 1024
_WARPGROUP_BYTES = 224 * 1024
_LEAST_STAGES = 3


def most_tokens_of_few_rows(of: Problem) -> int:
    """From how many tokens on an expert has more than a few rows on average."""
    return FEW_ROWS * of.experts // of.per_token + 1


def few_rows(of: Problem) -> WarpTile:
    """For few rows an expert: bound by the bytes of the weights, so narrow tiles, to have many, and a deep ring."""
    products = of.products
    width = 64 if of.transposed else max(32, 64 // products // 32 * 32)
    stages = _FEW_BYTES // WarpTile(products, FEW_ROWS, width, 1, 1, 4).stage_bytes
    return _checked(of, WarpTile(products, FEW_ROWS, width, min(8, stages), 1, 4))


def many_rows(of: Problem) -> WarpTile:
    """For many rows an expert: 128 rows by up to 256 columns of all weights together."""
    products = of.products
    most = min(256 // products, of.columns)
    width = (
        32
        if most <= 32 and not of.transposed
        else max(64, -(-most // 64) * 64 if most == of.columns else most // 64 * 64)
    )
    stages = _MANY_BYTES // WarpTile(products, 128, width, 1, 2, 4).stage_bytes
    return _checked(of, WarpTile(products, 128, width, min(4, stages), 2, 4))


def warpgroup_tile(of: Problem) -> WarpgroupTile:
    """128 rows by up to 256 columns of all weights together."""
    products = of.products
    unit = 64 if of.transposed else 8
    width = min(256 // products // unit * unit, -(-of.columns // unit) * unit)
    if width < unit:
        raise unsupported("cuda", of.op, f"{products} weights at once")
    stages = _WARPGROUP_BYTES // WarpgroupTile(products, width, 1).stage_bytes
    return WarpgroupTile(products, width, min(6, stages))


def _checked(of: Problem, tile: WarpTile) -> WarpTile:
    if tile.stages < _LEAST_STAGES:
        raise unsupported("cuda", of.op, f"{tile.products} weights at once")
    return tile
