"""How long a grouped matmul is predicted to take: which tile it is given follows from this.

A block works on one part after the other; a part is so many steps, each bound by the tensor cores or by what the L2
cache delivers, and an epilogue.  All together is bound by the bytes of the weights and rows.  Sizes, clocks and the
memory's rate are those that the vendor publishes; what tensor cores and the L2 cache sustain is rounded from published
measurements.  None of it was measured with these kernels.
"""

from __future__ import annotations

from dataclasses import dataclass

from moec.backends.cuda.matmul.problem import Problem
from moec.backends.cuda.matmul.tile import CodedWarpgroupTile, WarpgroupTile, WarpTile

Tile = CodedWarpgroupTile | WarpgroupTile | WarpTile


@dataclass(frozen=True)
class Device:
    """The device that an architecture is mostly found in.

    clock     Hz
    products  multiply-adds in 16 bits of a multiprocessor's tensor cores in a cycle; `warp_products` by mma.sync
    cached    bytes that the L2 cache gives a multiprocessor in a cycle
    memory    bytes that the memory gives in a second
    """

    multiprocessors: int
    clock: float
    products: int
    warp_products: int
    cached: float
    memory: float


DEVICES = {
    "sm_80": Device(108, 1.41e9, 1024, 1024, 40.0, 1.9e12),  # A100
    "sm_90a": Device(132, 1.7e9, 1700, 1200, 48.0, 3.3e12),  # H100
    "sm_100a": Device(148, 1.85e9, 1024, 1024, 48.0, 7.7e12),  # B200, by mma.sync
}

_FILL = 1500.0
"""Cycles until the first stage of a block has come."""
_RESULTS = 16.0
"""Elements of the result that an epilogue makes in a cycle."""
_INSTRUCTIONS = 128.0
"""That a multiprocessor's threads issue in a cycle."""
_TURNS = 200.0
"""Cycles of a step in which one of two warpgroups that decode waits for shared memory and for its products."""


def seconds(of: Problem, tile: Tile, device: Device, rows: float) -> float:
    """Predicted time where every expert that has rows has as many, `rows` on average over all experts."""
    experts, each = (of.experts, rows) if rows >= 1 else (max(1.0, of.experts * rows), 1.0)
    parts = experts * -(-each // tile.rows) * -(-of.columns // tile.width)
    steps = of.segments * -(-of.inner // tile.depth)
    wide = tile.width * tile.products
    rate = device.warp_products if isinstance(tile, WarpTile) else device.products
    step = max(tile.rows * wide * tile.depth / rate, tile.stage_bytes / device.cached)
    if isinstance(tile, CodedWarpgroupTile):  # each code once for all rows, while wgmma works
        decoding = wide * tile.depth * tile.decoding / _INSTRUCTIONS
        scaling = tile.scale_rows * tile.rows * wide / _INSTRUCTIONS
        # sums of groups are scaled between the products of one warpgroup, while the other's go on
        alone = (tile.rows * wide * tile.depth / rate + scaling if scaling else decoding) / 2
        step = max(step, decoding + scaling, alone + _TURNS)
    part = steps * step + tile.rows * tile.width / _RESULTS
    busy = (_FILL + -(-parts // device.multiprocessors) * part) / device.clock
    inner = of.segments * of.inner
    weights = experts * of.columns * inner * of.products * (of.bits / 8 + of.scale_bytes / 64)
    return max(busy, (weights + 2 * experts * each * (inner + of.columns)) / device.memory)
