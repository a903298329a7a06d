"""Whether two tensors hold the same bits."""

from __future__ import annotations

import torch


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal, NaN and signs of zero included."""
    if one.dtype is not other.dtype or one.shape != other.shape:
        return False
    flat = [tensor.contiguous().view(-1) for tensor in (one, other)]
    return not one.numel() or torch.equal(flat[0].view(torch.uint8), flat[1].view(torch.uint8))
