"""The layer by the Triton kernels; their tiles are the fastest of a few, tried once for each shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import torch
from triton.runtime.errors import OutOfResources

from bench.cuda.peers import route, sort
from bench.cuda.shapes import Shape
from bench.cuda.timing import median_seconds
from bench.cuda.triton_kernels import combine_kernel, down_kernel, up_kernel


@dataclass(frozen=True)
class Tile:
    """Rows, columns and depth of a block's tile, its warps, and how many loads are under way."""

    m: int
    n: int
    k: int
    warps: int
    stages: int


_MANY = (
    Tile(64, 128, 64, 4, 4),
    Tile(128, 128, 64, 8, 3),
    Tile(128, 128, 64, 8, 4),
    Tile(128, 128, 32, 8, 4),
    Tile(128, 256, 64, 8, 3),
    Tile(128, 64, 64, 4, 4),
)
_FEW = (Tile(16, 64, 128, 4, 4), Tile(16, 128, 128, 4, 3), Tile(16, 128, 64, 4, 5), Tile(32, 128, 64, 4, 4))

Weights = Mapping[str, torch.Tensor]


def layer(shape: Shape, weights: Weights, x: torch.Tensor) -> torch.Tensor:
    """The layer with the fastest tiles for this shape and number of rows an expert."""
    return run(shape, weights, x, *_tiles(shape, len(x)))


def run(shape: Shape, weights: Weights, x: torch.Tensor, up_tile: Tile, down_tile: Tile) -> torch.Tensor:
    """The layer with given tiles, of equal height."""
    chosen, share = route(shape, weights, x)
    order, group_ends = sort(chosen, shape.experts)
    order = order.int()
    offsets = torch.nn.functional.pad(group_ends, (1, 0))
    counts = offsets.diff()
    rows = len(order)
    hidden = torch.empty((rows, shape.ff), dtype=x.dtype, device=x.device)
    out = torch.empty((rows, shape.d), dtype=x.dtype, device=x.device)
    y = torch.empty_like(x)
    ends = ((counts + up_tile.m - 1) // up_tile.m).cumsum(0).int()
    # More programs than there are tiles, so that the host need not know how many: those behind the last end at once.
    tiles = rows // up_tile.m + min(shape.experts, rows)
    common = {"D": shape.d, "FF": shape.ff}
    up_kernel[(tiles * -(-shape.ff // up_tile.n),)](
        x, weights["routed.gate.weight"], weights["routed.up.weight"], hidden, order, ends, offsets, shape.experts,
        **common, TOP_K=shape.top_k, **_options(up_tile),
    )  # fmt: skip
    down_kernel[(tiles * -(-shape.d // down_tile.n),)](
        hidden, weights["routed.down.weight"], share.contiguous(), out, order, ends, offsets, shape.experts,
        **common, **_options(down_tile),
    )  # fmt: skip
    combine_kernel[(len(x), -(-shape.d // 1024))](out, y, shape.d, shape.top_k, 1024)
    return y


def _options(tile: Tile) -> dict[str, int]:
    return {
        "BLOCK_M": tile.m, "BLOCK_N": tile.n, "BLOCK_K": tile.k, "num_warps": tile.warps, "num_stages": tile.stages,
    }  # fmt: skip


@cache
def _tiles(shape: Shape, count: int) -> tuple[Tile, Tile]:
    """The fastest pair: first for up with any down, then for down."""
    from bench.cuda import data

    device = torch.device("cuda")
    weights, x = data.weights(shape, device, 0), data.tokens(shape, count, device, 0)
    candidates = _FEW if count * shape.top_k < 16 * shape.experts else _MANY

    def seconds(up: Tile, down: Tile) -> float:
        try:
            return median_seconds(lambda: run(shape, weights, x, up, down), rounds=7)
        except OutOfResources:
            return float("inf")

    up = min(candidates, key=lambda tile: seconds(tile, tile))
    down = min((tile for tile in candidates if tile.m == up.m), key=lambda tile: seconds(up, tile))
    return up, down
