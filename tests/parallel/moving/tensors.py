"""Experts in ordinary tensors, as tests move them."""

from __future__ import annotations

from collections.abc import Mapping
from zlib import crc32

import torch

from moec.runtime.parallel.moving.memory import Pieces


class TensorSlots:
    """Ordinary contiguous tensors `[slots, ...]`."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        (self._slots,) = {len(tensor) for tensor in tensors.values()}
        self._tensors = dict(tensors)
        rows = [f"{name} {tensor.dtype} {list(tensor.shape[1:])}" for name, tensor in tensors.items()]
        self._form = f"{crc32(str(rows).encode()):016x}"

    @property
    def slots(self) -> int:
        return self._slots

    @property
    def form(self) -> str:
        return self._form

    @property
    def plain(self) -> str:
        return self._form

    def pieces(self, slot: int) -> Pieces:
        return tuple(tensor[slot].reshape(-1).view(torch.uint8) for tensor in self._tensors.values())

    def ordinary(self, slot: int) -> Pieces:
        return self.pieces(slot)

    def room(self) -> Pieces:
        return tuple(torch.empty_like(piece) for piece in self.pieces(0))

    def formed(self, ordinary: Pieces) -> Pieces:
        return ordinary
