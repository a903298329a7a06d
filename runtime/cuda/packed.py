"""Codes and scales as CUDA devices keep them (shapes: `moec.artifact.cuda`).

Codes of less than a byte are numbers from 0, in lines of 64.  A line is made of words of 32 bits, the least significant
byte first; kernels take two codes from a word at a time, one out of each half, as one operand of two 16-bit floats.
"""

from __future__ import annotations

import torch

from moec.artifact.cuda import LINE
from moec.formats import FORMATS


def packed_codes(codes: torch.Tensor, format: str) -> torch.Tensor:
    """i8 [E, N, bytes] of codes [E, N, K], on their device."""
    bits = FORMATS[format].bits
    if bits == 8:
        return codes
    lowest = FORMATS[format].lowest
    padded = torch.nn.functional.pad(codes, (0, -codes.shape[2] % LINE))
    fields = (padded - lowest).to(torch.uint8).unflatten(2, (-1, LINE)).index_select(3, _order(bits, codes.device))
    shifts = bits * torch.arange(8 // bits, dtype=torch.uint8, device=codes.device)
    bytes_: torch.Tensor = (fields.unflatten(3, (-1, 8 // bits)) << shifts).sum(-1, dtype=torch.uint8)
    return bytes_.flatten(2).view(torch.int8)


def unpacked_codes(packed: torch.Tensor, format: str, inner: int) -> torch.Tensor:
    """The inverse: i8 [E, N, K]."""
    bits = FORMATS[format].bits
    if bits == 8:
        return packed
    shifts = bits * torch.arange(8 // bits, dtype=torch.uint8, device=packed.device)
    fields = (packed.view(torch.uint8).unsqueeze(-1) >> shifts) & (2**bits - 1)
    order = _order(bits, packed.device).argsort()
    lines: torch.Tensor = fields.flatten(2).unflatten(2, (-1, LINE)).index_select(3, order)
    return lines.flatten(2).narrow(2, 0, inner).to(torch.int8) + FORMATS[format].lowest


def packed_scales(scales: torch.Tensor) -> torch.Tensor:
    """[E, G, N rounded up] of scales [E, N, G]; those of channels, [E, N], stay as they are."""
    if scales.dim() == 2:
        return scales
    return torch.nn.functional.pad(scales.transpose(1, 2), (0, -scales.shape[1] % 8))


def unpacked_scales(packed: torch.Tensor, columns: int) -> torch.Tensor:
    """The inverse: [E, N, G]."""
    return packed if packed.dim() == 2 else packed.narrow(2, 0, columns).transpose(1, 2)


def _order(bits: int, device: torch.device) -> torch.Tensor:
    """Which code of a line stands in each field of its bytes, the least significant one first."""
    field = torch.arange(LINE, device=device)
    word, place = field // (32 // bits), field % (32 // bits)
    side, pair = place // (16 // bits), place % (16 // bits)
    first = word // 4 * (128 // bits) + word % 4 * 8
    return first + pair // 4 * 32 + pair % 4 * 2 + side
