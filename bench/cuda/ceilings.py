"""What the device can do at most, measured in the same run: matmul TFLOP/s and copy GB/s."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bench.cuda.timing import median_seconds

_SIZE = 8192
_COPIED = 2**30


@dataclass(frozen=True)
class Ceilings:
    """matmul: bf16 TFLOP/s of a square product; copy: GB/s read and written together."""

    matmul: float
    copy: float


def measure() -> Ceilings:
    a, b = (torch.randn(_SIZE, _SIZE, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    seconds = median_seconds(lambda: a @ b)
    source = torch.empty(_COPIED, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    copied = median_seconds(lambda: target.copy_(source))
    return Ceilings(2 * _SIZE**3 / seconds / 1e12, 2 * _COPIED / copied / 1e9)
