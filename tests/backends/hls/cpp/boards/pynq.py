"""A board that is none: what `host/moe_layer.py` uses of PYNQ, over the kernel in C++ that `LIBRARY` names."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

LIBRARY = ""


class Buffer(np.ndarray):
    """Memory of the host, and `there`, the board's; nothing goes from one to the other but by the two methods."""

    there: np.ndarray

    def sync_to_device(self) -> None:
        self.there[...] = self

    def sync_from_device(self) -> None:
        self[...] = self.there


def allocate(shape: tuple[int, ...], dtype: Any) -> Buffer:
    buffer = np.zeros(shape, dtype).view(Buffer)
    buffer.there = np.full(shape, 85, dtype)
    return buffer


class _Kernel:
    def call(self, *given: Any) -> None:
        *buffers, count = given
        rows, *middle, result = (buffer.there for buffer in buffers)
        tasks = middle.pop(0) if middle[0].dtype == np.int32 else None
        pointers = (ctypes.c_void_p * len(middle))(*(port.ctypes.data for port in middle))
        library = ctypes.CDLL(LIBRARY)
        at = ctypes.c_void_p
        assert (
            library.moec_csim(
                at(rows.ctypes.data),
                at(None if tasks is None else tasks.ctypes.data),
                pointers,
                at(result.ctypes.data),
                count,
            )
            == 0
        )


class Overlay:
    def __init__(self, xclbin: str) -> None:
        assert xclbin == "moe_layer.xclbin"
        self.moe_layer_1 = _Kernel()
