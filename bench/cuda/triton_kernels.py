"""A fused MoE layer in Triton, as good as it gets with a tile program a block: the baseline that moec has to beat.

Rows are gathered while they are loaded, gate and up share a pass over them, the activation is made on accumulators, and
the down-projection weights its rows before it stores them.  Written for these measurements.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _tile(program, tile_ends, offsets, experts, column_tiles, BLOCK_M: tl.constexpr):
    """The expert, first row, last row and column tile of a program; the expert is `experts` where there is none."""
    tile = program // column_tiles
    low = 0
    high = experts
    while low < high:
        middle = (low + high) // 2
        if tl.load(tile_ends + middle) > tile:
            high = middle
        else:
            low = middle + 1
    before = 0
    first = 0
    last = 0
    if low < experts:
        if low > 0:
            before = tl.load(tile_ends + low - 1)
        first = tl.load(offsets + low) + (tile - before) * BLOCK_M
        last = tl.load(offsets + low + 1)
    return low, first, last, program % column_tiles


@triton.jit
def up_kernel(
    x, gate, up, hidden, order, tile_ends, offsets, experts,
    D: tl.constexpr, FF: tl.constexpr, TOP_K: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """hidden[r, n] = silu(x[token r] . gate[e, n]) * (x[token r] . up[e, n]), rows sorted by expert."""
    columns: tl.constexpr = (FF + BLOCK_N - 1) // BLOCK_N
    expert, first, last, column = _tile(tl.program_id(0), tile_ends, offsets, experts, columns, BLOCK_M)
    if expert < experts:
        row = first + tl.arange(0, BLOCK_M)
        inside = row < last
        token = tl.load(order + row, mask=inside, other=0) // TOP_K
        n = column * BLOCK_N + tl.arange(0, BLOCK_N)
        k = tl.arange(0, BLOCK_K)
        at_x = x + token[:, None].to(tl.int64) * D + k[None, :]
        weight = (expert.to(tl.int64) * FF + n[None, :]) * D + k[:, None]
        g = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
        u = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
        for begin in range(0, D, BLOCK_K):
            depth = begin + k < D
            rows = tl.load(at_x + begin, mask=inside[:, None] & depth[None, :], other=0.0)
            here = depth[:, None] & (n < FF)[None, :]
            g = tl.dot(rows, tl.load(gate + weight + begin, mask=here, other=0.0), g)
            u = tl.dot(rows, tl.load(up + weight + begin, mask=here, other=0.0), u)
        value = g / (1.0 + tl.exp(-g)) * u
        at = hidden + row[:, None].to(tl.int64) * FF + n[None, :]
        tl.store(at, value.to(hidden.dtype.element_ty), mask=inside[:, None] & (n < FF)[None, :])


@triton.jit
def down_kernel(
    hidden, down, share, rows_out, order, tile_ends, offsets, experts,
    D: tl.constexpr, FF: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """rows_out[slot of r, n] = share[slot of r] * hidden[r] . down[e, n]."""
    columns: tl.constexpr = (D + BLOCK_N - 1) // BLOCK_N
    expert, first, last, column = _tile(tl.program_id(0), tile_ends, offsets, experts, columns, BLOCK_M)
    if expert < experts:
        row = first + tl.arange(0, BLOCK_M)
        inside = row < last
        slot = tl.load(order + row, mask=inside, other=0)
        n = column * BLOCK_N + tl.arange(0, BLOCK_N)
        k = tl.arange(0, BLOCK_K)
        at_hidden = hidden + row[:, None].to(tl.int64) * FF + k[None, :]
        weight = (expert.to(tl.int64) * D + n[None, :]) * FF + k[:, None]
        sum = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
        for begin in range(0, FF, BLOCK_K):
            depth = begin + k < FF
            rows = tl.load(at_hidden + begin, mask=inside[:, None] & depth[None, :], other=0.0)
            here = depth[:, None] & (n < D)[None, :]
            sum = tl.dot(rows, tl.load(down + weight + begin, mask=here, other=0.0), sum)
        sum = sum * tl.load(share + slot, mask=inside, other=0.0)[:, None]
        at = rows_out + slot[:, None].to(tl.int64) * D + n[None, :]
        tl.store(at, sum.to(rows_out.dtype.element_ty), mask=inside[:, None] & (n < D)[None, :])


@triton.jit
def combine_kernel(rows, y, D: tl.constexpr, TOP_K: tl.constexpr, BLOCK: tl.constexpr):
    """y[t, n] = the sum over slots of rows[t * TOP_K + slot, n]."""
    token = tl.program_id(0).to(tl.int64)
    n = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    sum = tl.zeros((BLOCK,), dtype=tl.float32)
    for slot in tl.static_range(TOP_K):
        sum += tl.load(rows + (token * TOP_K + slot) * D + n, mask=n < D, other=0.0).to(tl.float32)
    tl.store(y + token * D + n, sum.to(y.dtype.element_ty), mask=n < D)
