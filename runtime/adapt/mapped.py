"""Packed weights in a file that is mapped into memory: what is not in memory is read when a kernel touches it.

A mapping is ordinary memory to the kernels, so the same code runs and the same bits come out; what is let go costs a
read from the disk when it is next needed.  Pages are small ones (the page cache of most file systems has no huge pages
for writing), which costs streaming kernels some per cent.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import tempfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from moec.errors import WeightsError

_PAGE = mmap.PAGESIZE

Range = tuple[int, int]
"""Begin and end in bytes."""


class MappedMemory:
    """`nbytes` of memory whose contents live in an unnamed file of `folder`; gone with the last reference.

    buffer  u8 [nbytes]
    """

    def __init__(self, nbytes: int, folder: str | Path) -> None:
        """Raises WeightsError where the folder has no room, OSError where it cannot be written."""
        self.nbytes = nbytes
        with tempfile.TemporaryFile(dir=folder, prefix="moec-weights-") as file:
            try:
                # A hole that finds no room when it is written would end the process by a signal.
                os.posix_fallocate(file.fileno(), 0, max(nbytes, 1))
            except OSError as error:
                raise WeightsError(f"{folder} has no room for {nbytes:,} bytes of weights: {error.strerror}") from error
            self._map = mmap.mmap(file.fileno(), max(nbytes, 1), mmap.MAP_SHARED)
            self._descriptor = _Descriptor(os.dup(file.fileno()))
        # Otherwise the system reads on both sides of what is touched, which is twice as much as what is needed.
        self._map.madvise(mmap.MADV_SEQUENTIAL)
        self.buffer = torch.frombuffer(self._map, dtype=torch.uint8, count=nbytes)

    def drop(self, ranges: Iterable[Range]) -> None:
        """Let go of the memory of all whole pages within `ranges`; a kernel that reads them meanwhile reads them again.

        What was written since is brought to the disk first.  Where a file system holds a file in larger pieces than
        pages, those that reach beyond a range stay, so neighbouring ranges count as one.
        """
        os.fdatasync(self._descriptor.number)
        for begin, end in _joined(ranges):
            first, last = -(-begin // _PAGE) * _PAGE, end // _PAGE * _PAGE
            if first < last:
                _advise(self.buffer.data_ptr() + first, last - first, mmap.MADV_DONTNEED)
                os.posix_fadvise(self._descriptor.number, first, last - first, os.POSIX_FADV_DONTNEED)

    def resident(self, ranges: Iterable[Range]) -> int:
        """Bytes of `ranges` that are in memory, counted in pages."""
        return sum(self._resident(begin, end) for begin, end in ranges)

    def _resident(self, begin: int, end: int) -> int:
        first, last = begin // _PAGE * _PAGE, min(-(-end // _PAGE) * _PAGE, -(-self.nbytes // _PAGE) * _PAGE)
        if first >= last:
            return 0
        pages = np.zeros((last - first) // _PAGE, np.uint8)
        if _library().mincore(self.buffer.data_ptr() + first, last - first, pages.ctypes.data):
            raise OSError(ctypes.get_errno(), "mincore failed")
        return int((pages & 1).sum()) * _PAGE


class _Descriptor:
    """A file descriptor that is closed with its last reference."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.close(self.number)


def _joined(ranges: Iterable[Range]) -> list[Range]:
    """Without borders between neighbours."""
    joined: list[Range] = []
    for begin, end in sorted(ranges):
        if joined and joined[-1][1] == begin:
            begin = joined.pop()[0]
        joined.append((begin, end))
    return joined


@cache
def _library() -> Any:
    # Called through ctypes, which lets other threads run meanwhile: mmap.madvise does not.
    library = ctypes.CDLL(None, use_errno=True)
    library.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    library.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
    return library


def _advise(address: int, nbytes: int, advice: int) -> None:
    if _library().madvise(address, nbytes, advice):
        raise OSError(ctypes.get_errno(), "madvise failed")
