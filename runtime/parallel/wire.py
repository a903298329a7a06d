"""Rows as they travel: as they are, or rounded to fewer bytes with a scale for each row.

A row of 8-bit numbers is [f32 scale][one byte for each element, filled up to a multiple of four]; what it stands for is
scale * number.  The scale makes the row's largest element the largest number of the type, so a row of zeros has the
scale 0, and what is not finite stays in its row.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

_LARGEST = {"int8": 127.0, "fp8_e4m3": 448.0}
_SCALE_BYTES = 4


@dataclass(frozen=True)
class Wire:
    """How rows of `columns` elements of `dtype` travel.

    kind  None: as they are; else "bf16", "fp8_e4m3" or "int8"
    """

    columns: int
    dtype: torch.dtype
    kind: str | None = None

    @property
    def plain(self) -> bool:
        """Do rows travel as they are?"""
        return self.kind is None or (self.kind == "bf16" and self.dtype is torch.bfloat16)

    @property
    def carrier(self) -> torch.dtype:
        """The element type of travelling rows, as tensors hold them."""
        if self.plain:
            return self.dtype
        return torch.bfloat16 if self.kind == "bf16" else torch.uint8

    @property
    def width(self) -> int:
        """Elements of `carrier` in a travelling row."""
        if self.carrier is not torch.uint8:
            return self.columns
        return _SCALE_BYTES + -(-self.columns // 4) * 4

    @property
    def row_bytes(self) -> int:
        """Bytes of a travelling row."""
        return self.width * self.carrier.itemsize

    def encode(self, rows: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """`[n, columns]` of `dtype` -> `[n, width]` of `carrier`, in `out` if given; plain rows are themselves."""
        if self.plain:
            return rows if out is None else out.copy_(rows)
        if out is None:
            out = torch.empty((len(rows), self.width), dtype=self.carrier, device="cpu")
        if self.kind == "bf16":
            return out.copy_(rows)
        values = rows.float()
        largest = _LARGEST[str(self.kind)]
        scale = values.abs().amax(1, keepdim=True).div_(largest) if self.columns else values.new_zeros(len(rows), 1)
        numbers = values / torch.where(scale > 0, scale, 1.0)
        body = out[:, _SCALE_BYTES : _SCALE_BYTES + self.columns]
        if self.kind == "int8":
            body.view(torch.int8).copy_(numbers.round_().clamp_(-largest, largest))
        else:
            body.view(torch.float8_e4m3fn).copy_(numbers.clamp_(-largest, largest))
        out[:, :_SCALE_BYTES] = scale.view(torch.uint8)
        out[:, _SCALE_BYTES + self.columns :] = 0
        return out

    def decode(self, rows: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """The way back: `[n, width]` of `carrier` -> `[n, columns]` of `dtype`."""
        if self.plain:
            return rows if out is None else out.copy_(rows)
        if out is None:
            out = torch.empty((len(rows), self.columns), dtype=self.dtype, device="cpu")
        if self.kind == "bf16":
            return out.copy_(rows)
        scale = rows[:, :_SCALE_BYTES].contiguous().view(torch.float32)
        numbers = rows[:, _SCALE_BYTES : _SCALE_BYTES + self.columns].view(torch.int8)
        if self.kind == "int8":
            return torch.mul(numbers, scale, out=out)
        # The bits of e4m3 as those of f16, whose exponents begin 8 lower: a fifth of the time of torch's own way.
        halves = numbers.to(torch.int16)
        halves <<= 7
        halves &= ~0x4000  # a copy of the sign
        return torch.mul(halves.view(torch.float16), scale * 256.0, out=out)
