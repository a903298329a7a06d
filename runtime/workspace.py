"""Scratch memory of running calls, shared by all layers of the process.

A call takes a buffer and gives it back, so calls that run at once have buffers of their own and a model of many layers
has one.  Buffers are kept for the next call; one that has long been far too large is dropped.
"""

from __future__ import annotations

import threading

import torch

from moec.runtime.memory import allocate

_PATIENCE = 64
_FAR_TOO_LARGE = 4
_GRAIN = 4096


class WorkspacePool:
    """A stack of free buffers: the last one given back, whose pages are in the caches, is taken first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free: list[torch.Tensor] = []
        self._takes = 0
        self._idle = 0  # buffers that stayed on the stack throughout the last `_takes` calls
        self._oversized = 0  # calls in a row whose buffer was far too large

    def take(self, nbytes: int) -> torch.Tensor:
        """A u8 buffer of at least `nbytes`, for this caller alone until `give`."""
        with self._lock:
            buffer = self._free.pop() if self._free else None
            self._count_idle()
            if buffer is not None and buffer.numel() >= nbytes and not self._outgrown(buffer, nbytes):
                return buffer
        del buffer  # gone before its successor comes
        return allocate(-(-nbytes // _GRAIN) * _GRAIN or _GRAIN)

    def give(self, buffer: torch.Tensor) -> None:
        """Hand back what `take` gave."""
        with self._lock:
            self._free.append(buffer)

    def release(self) -> int:
        """Drop every buffer that no call is using; returns their bytes."""
        with self._lock:
            dropped, self._free, self._idle = self._free, [], 0
        return sum(buffer.numel() for buffer in dropped)

    def _count_idle(self) -> None:
        """Every so often, drop the buffers below those that were needed since: a burst of threads has passed."""
        self._takes += 1
        self._idle = min(self._idle, len(self._free))
        if self._takes >= _PATIENCE:
            del self._free[: self._idle]
            self._takes, self._idle = 0, len(self._free)

    def _outgrown(self, buffer: torch.Tensor, nbytes: int) -> bool:
        far_too_large = buffer.numel() > _FAR_TOO_LARGE * nbytes + _GRAIN
        self._oversized = self._oversized + 1 if far_too_large else 0
        if self._oversized < _PATIENCE:
            return False
        self._oversized = 0
        return True


WORKSPACES = WorkspacePool()
"""The process's pool."""
