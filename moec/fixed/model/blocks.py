"""How many blocks of memory a buffer takes on the chip."""

from __future__ import annotations

from math import ceil

from moec.fixed.design import Memory
from moec.fixed.model.resources import Resources

_HALVES = ((36, 512), (18, 1024), (9, 2048), (4, 4096), (2, 8192), (1, 16384))
"""Shapes of half a block of 36 Kbit: bits and words."""

_WHOLES = ((72, 512), (36, 1024), (18, 2048), (9, 4096), (4, 8192), (2, 16384), (1, 32768))
_URAM = (72, 4096)
_LUT_SHAPES = ((14, 32), (7, 64))
"""Bits and words of eight look-up tables as one memory with a port to write and one to read."""


def blocks(memory: Memory, width: int, depth: int) -> Resources:
    """A memory of `depth` words of `width` bits, with a port to write and a port to read."""
    if memory is Memory.LUTRAM:
        return Resources(0, 0, 0, 8 * min(ceil(width / w) * ceil(depth / d) for w, d in _LUT_SHAPES), 0)
    if memory is Memory.URAM:
        return Resources(0, 0, ceil(width / _URAM[0]) * ceil(depth / _URAM[1]), 0, 0)
    halves = min(ceil(width / w) * ceil(depth / d) for w, d in _HALVES) / 2
    wholes = min(ceil(width / w) * ceil(depth / d) for w, d in _WHOLES)
    return Resources(0, min(halves, wholes), 0, 0, 0)
