"""Memory for weights, gradients and workspaces: tensors that the kernels can use as they are.

Every buffer begins at a multiple of 64 bytes.  A large one is a mapping of its own that asks for huge pages (streaming
weights through 4 KiB pages spends its time in page walks) and goes back to the system as soon as it is dropped.
"""

from __future__ import annotations

import contextlib
import math
import mmap
from collections.abc import Sequence

import torch

ALIGNMENT = 64
"""What the kernels rely on, in bytes."""

HUGE_PAGE = 2 * 2**20
MAP_FROM = 2 * HUGE_PAGE
"""From this size on, in bytes, a buffer is a mapping of its own."""


def allocate(nbytes: int) -> torch.Tensor:
    """A u8[nbytes] tensor.  Pages of a large one are touched, and so counted, only when they are written."""
    if nbytes < MAP_FROM:
        return torch.empty(nbytes, dtype=torch.uint8, device="cpu")
    region = map_pages(nbytes)
    begin = -torch.frombuffer(region, dtype=torch.uint8).data_ptr() % HUGE_PAGE
    return torch.frombuffer(region, dtype=torch.uint8, count=nbytes, offset=begin)


def map_pages(nbytes: int) -> mmap.mmap:
    """A mapping with room for `nbytes` from a huge page's beginning on, of huge pages if the system has them."""
    region = mmap.mmap(-1, nbytes + HUGE_PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a kernel built without huge pages refuses the wish; small ones do too
        region.madvise(mmap.MADV_HUGEPAGE)
    return region


def empty(shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """A contiguous tensor without values in such memory."""
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes < MAP_FROM:
        return torch.empty(shape, dtype=dtype, device="cpu")
    return allocate(nbytes).view(dtype).view(shape)
