"""Memory that tells of what is written or read beside it.

A tensor ends where a page begins that nobody may touch, so that a read behind it ends the process; the bytes in front
of it, and those behind it that its alignment leaves, hold a pattern that `intact` looks for.
"""

from __future__ import annotations

import ctypes
import math
import mmap
from collections.abc import Sequence
from dataclasses import dataclass

import torch

PATTERN = 0xA5
_PAGE = mmap.PAGESIZE
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Guarded:
    """A tensor, and the accessible bytes around it."""

    tensor: torch.Tensor
    front: torch.Tensor
    rear: torch.Tensor

    @property
    def intact(self) -> bool:
        """Nothing was written beside the tensor."""
        return bool((self.front == PATTERN).all()) and bool((self.rear == PATTERN).all())


def guarded(shape: Sequence[int], dtype: torch.dtype, fill: int = 0xFF, alignment: int = 0) -> Guarded:
    """A tensor of bytes `fill` (0xFF: NaN, or -1) at a multiple of `alignment`, by itself of its element's size."""
    nbytes = math.prod(shape) * dtype.itemsize
    alignment = alignment or dtype.itemsize
    room = (nbytes + alignment + _PAGE - 1) // _PAGE * _PAGE
    region = mmap.mmap(-1, room + 2 * _PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    whole = torch.frombuffer(region, dtype=torch.uint8)
    base = whole.data_ptr()
    whole[_PAGE:-_PAGE] = PATTERN
    for page in (base, base + _PAGE + room):
        if _LIBC.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(_PAGE), 0):
            raise OSError(ctypes.get_errno(), "mprotect")
    begin = _PAGE + (room - nbytes) // alignment * alignment
    inside = whole[begin : begin + nbytes]
    inside.fill_(fill)
    view = torch.frombuffer(region, dtype=dtype, count=nbytes // dtype.itemsize, offset=begin) if nbytes else None
    tensor = torch.empty(shape, dtype=dtype) if view is None else view.view(*shape)
    return Guarded(tensor, whole[_PAGE:begin], whole[begin + nbytes : _PAGE + room])


def guarded_copy(tensor: torch.Tensor) -> torch.Tensor:
    """The same values, contiguous, directly before a page that nobody may touch."""
    made = guarded(tensor.shape, tensor.dtype).tensor
    made.copy_(tensor)
    return made
