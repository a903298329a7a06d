"""Experts in ordinary tensors, as tests move them."""

from __future__ import annotations

from collections.abc import Mapping
from zlib import crc32

import torch

from moec.runtime.parallel.moving.memory import AsTheyLie, Pieces


class TensorSlots(AsTheyLie):
    """Ordinary contiguous tensors `[slots, ...]`."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        (slots,) = {len(tensor) for tensor in tensors.values()}
        rows = [f"{name} {tensor.dtype} {list(tensor.shape[1:])}" for name, tensor in tensors.items()]
        super().__init__(slots, f"{crc32(str(rows).encode()):016x}")
        self._tensors = dict(tensors)

    def pieces(self, slot: int) -> Pieces:
        return tuple(tensor[slot].reshape(-1).view(torch.uint8) for tensor in self._tensors.values())
