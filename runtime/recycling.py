"""Memory for gradients and for what is kept between forward and backward: dropped tensors leave theirs to the next.

Each step of training drops such tensors and makes new ones of the same sizes.  Fresh memory must be cleared by the
system page by page, which takes about as long as writing the tensor; memory that was used before need not.
"""

from __future__ import annotations

import math
import mmap
import threading
import weakref
from collections.abc import Sequence

import numpy as np
import torch

from moec.runtime.memory import HUGE_PAGE, MAP_FROM, map_pages

_FAR_TOO_LARGE = 2
_PATIENCE = 1024


class RecyclingPool:
    """Large tensors whose memory comes back to the pool when the last reference to it is dropped."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free: list[tuple[mmap.mmap, int]] = []  # a region, and how many tensors there were when it came back
        self._taken = 0

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """A contiguous tensor without values; a large one in memory of the pool."""
        nbytes = math.prod(shape) * dtype.itemsize
        if nbytes < MAP_FROM:
            return torch.empty(shape, dtype=dtype, device="cpu")
        with self._lock:
            self._taken += 1
            self._drop_the_idle()
            region = self._best(nbytes)
        region = region or map_pages(nbytes)
        begin = -np.frombuffer(region, np.uint8).ctypes.data % HUGE_PAGE
        memory = np.frombuffer(region, np.uint8, count=nbytes, offset=begin)
        weakref.finalize(memory, self._give, region).atexit = False
        return torch.from_numpy(memory).view(dtype).view(tuple(shape))

    def release(self) -> int:
        """Give back to the system what no tensor uses; returns the bytes."""
        with self._lock:
            dropped, self._free = self._free, []
        return sum(len(region) for region, _ in dropped)

    def _give(self, region: mmap.mmap) -> None:
        # Without the lock: this may run wherever Python drops an object, in a thread that holds it too.
        self._free.append((region, self._taken))

    def _best(self, nbytes: int) -> mmap.mmap | None:
        """The smallest region that is large enough, and not far too large; among equals the one that came last."""
        found = None
        for index, (region, _) in enumerate(self._free):
            fits = nbytes + HUGE_PAGE <= len(region) <= _FAR_TOO_LARGE * nbytes + HUGE_PAGE
            if fits and (found is None or len(region) <= len(self._free[found][0])):
                found = index
        return None if found is None else self._free.pop(found)[0]

    def _drop_the_idle(self) -> None:
        """Drop a region that many tensors were made without: shapes have changed."""
        if self._free and self._taken - self._free[0][1] > _PATIENCE:
            del self._free[0]


RECYCLED = RecyclingPool()
"""The process's pool."""
