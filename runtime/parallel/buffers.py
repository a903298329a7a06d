"""Memory that calls use again: rows that are sent, that have arrived, that come back."""

from __future__ import annotations

from collections.abc import Hashable

import torch

from moec.runtime.memory import allocate

_GRAIN = 4096


class Buffers:
    """Tensors by name; each grows to the largest that was ever asked for, by an eighth at least.

    What was taken before by the same name lies in the same memory.
    """

    def __init__(self) -> None:
        self._held: dict[Hashable, torch.Tensor] = {}
        self._taken: dict[Hashable, tuple[tuple[int, ...], torch.dtype, torch.Tensor]] = {}

    def take(self, name: Hashable, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """A contiguous tensor without values."""
        before = self._taken.get(name)
        if before is not None and before[0] == shape and before[1] is dtype:
            return before[2]
        size = dtype.itemsize
        for one in shape:
            size *= one
        held = self._held.get(name)
        if held is None or held.numel() < size:
            grown = max(size, held.numel() * 9 // 8 if held is not None else 0)
            held = self._held[name] = allocate(-(-grown // _GRAIN) * _GRAIN or _GRAIN)
        found = held[:size].view(dtype).view(shape)
        self._taken[name] = shape, dtype, found
        return found

    @property
    def nbytes(self) -> int:
        """What is held, in bytes."""
        return sum(held.numel() for held in self._held.values())

    def release(self) -> int:
        """Let go of everything; returns the bytes."""
        freed = self.nbytes
        self._held.clear()
        self._taken.clear()
        return freed
