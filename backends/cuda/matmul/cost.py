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
    floats    operations in f32 of a multiprocessor in a cycle
    cached    bytes that the L2 cache gives a multiprocessor in a cycle
    memory    bytes that the memory gives in a second
    """

    multiprocessors: int
    clock: float
    products: int
    warp_products: int
    floats: float
    cached: float
    memory: float


DEVICES = {
    "sm_80": Device(108, 1.41e9, 1024, 1024, 64.0, 40.0, 1.9e12),  # A100
    "sm_90a": Device(132, 1.7e9, 1700, 1200, 128.0, 48.0, 3.3e12),  # H100
    "sm_100a": Device(148, 1.85e9, 1024, 1024, 128.0, 48.0, 7.7e12),  # B200, by mma.sync
}

_FILL = 1500.0
"""Cycles until the first stage of a block has come."""
_RESULTS = 16.0
"""Elements of the result that an epilogue makes in a cycle."""
_INSTRUCTIONS = 128.0
"""That a multiprocessor's threads issue in a cycle."""
_WHOLE = 2.0
"""How many products of whole numbers of a byte tensor cores make in the time of one of floats in 16 bits."""
_SCALING = {CodedWarpgroupTile: 3.0, WarpTile: 2.0}
"""Instructions that make a sum of whole numbers of a group a float and add it, times its scale."""
_TURNS = 200.0
"""Cycles of a step in which one of two warpgroups that decode waits for shared memory and for its products."""


def seconds(of: Problem, tile: Tile, device: Device, rows: float) -> float:
    """Predicted time where every expert that has rows has as many, `rows` on average over all experts."""
    experts, rows_each = (of.experts, rows) if rows >= 1 else (max(1.0, of.experts * rows), 1.0)
    parts = experts * -(-rows_each // tile.rows) * -(-of.columns // tile.width)
    steps = of.segments * -(-of.inner // tile.depth)
    wide = tile.width * tile.products
    rate = (device.warp_products if isinstance(tile, WarpTile) else device.products) * (_WHOLE if of.rounded else 1.0)
    step = max(tile.rows * wide * tile.depth / rate, tile.stage_bytes / device.cached)
    each = _SCALING.get(type(tile), 0.0) if of.rounded else float(isinstance(tile, CodedWarpgroupTile))
    scaling = 0.0 if isinstance(tile, WarpgroupTile) else tile.scale_rows * tile.rows * wide * each / device.floats
    step = max(step, scaling)
    if isinstance(tile, CodedWarpgroupTile):  # each code once for all rows, while wgmma works
        decoding = wide * tile.depth * tile.decoding / _INSTRUCTIONS
        # sums of groups are scaled between the products of one warpgroup, while the other's go on
        alone = (tile.rows * wide * tile.depth / rate + scaling if scaling else decoding) / 2
        step = max(step, decoding + scaling, alone + _TURNS)
    part = steps * step + tile.rows * tile.width / _RESULTS
    busy = (_FILL + -(-parts // device.multiprocessors) * part) / device.clock
    inner = of.segments * of.inner
    weights = experts * of.columns * inner * of.products * (of.bits / 8 + of.scale_bytes(of.depth) / of.depth)
    moved = weights + experts * rows_each * (inner * (1 if of.rounded else 2) + 2 * of.columns)
    return max(busy, moved / device.memory)
