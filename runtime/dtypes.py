"""The element types of a manifest as torch's."""

from __future__ import annotations

from collections.abc import Mapping

import torch

TORCH_DTYPES: Mapping[str, torch.dtype] = {
    "f32": torch.float32,
    "bf16": torch.bfloat16,
    "f16": torch.float16,
    "i32": torch.int32,
    "i8": torch.int8,
    "f8E4M3FN": torch.float8_e4m3fn,
}
