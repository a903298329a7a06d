"""`moec.quantize`: weights to codes and scales ahead of time, with the rounding that packing has."""

from __future__ import annotations

import torch

from moec.errors import DeviceError, DtypeError, InputError, ShapeError
from moec.formats import FORMATS, Codes
from moec.runtime.dtypes import TORCH_DTYPES

_FLOATS = (torch.float32, torch.bfloat16, torch.float16)


def quantize(
    weights: torch.Tensor, format: str, *, group: int | None = None, scale: torch.dtype | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes and scales of `weights`, as a layer with `prequantized = true` takes them.

    weights  f32, bf16 or f16 of shape (..., out, in), such as a stack of experts (experts, out, in), on the CPU
    format   "int8", "int4", "ternary" or "fp8_e4m3"
    group    how many neighbouring inputs share a scale; by default all: one scale a channel
    scale    dtype of the scales, f32 or bf16; by default f32 for channels, bf16 for groups

    Returns codes, int8 (fp8_e4m3: float8_e4m3fn) of the shape of `weights`, one an element, and scales: (..., out) for
    channels, (..., out, in / group) for groups.  They are bit for bit what packing makes of the same weights.

    Raises InputError (unknown format or group), DtypeError, ShapeError or DeviceError.
    """
    if format not in FORMATS:
        raise InputError(f"there is no format {format!r}; there are {', '.join(FORMATS)}")
    if not isinstance(weights, torch.Tensor) or weights.dtype not in _FLOATS:
        given = weights.dtype if isinstance(weights, torch.Tensor) else type(weights).__name__
        raise DtypeError(f"weights must be a torch.Tensor of f32, bf16 or f16, not {given}")
    if weights.device.type != "cpu":
        raise DeviceError(f"weights are on {weights.device}: call `.cpu()` first")
    if weights.ndim < 2 or not weights.numel():
        raise ShapeError(f"weights must have shape (..., out, in) and hold elements, not {list(weights.shape)}")
    if group is not None and (group < 1 or weights.shape[-1] % group):
        raise InputError(f"groups of {group} do not divide {weights.shape[-1]} inputs")
    kept = scale or (torch.float32 if group is None else torch.bfloat16)
    if kept not in (torch.float32, torch.bfloat16):
        raise DtypeError(f"scales are torch.float32 or torch.bfloat16, not {kept}")
    lead, inner = weights.shape[:-1], weights.shape[-1]
    groups = 1 if group is None else inner // group
    matrices = weights.detach().reshape(-1, weights.shape[-2], groups, inner // groups)
    codes = torch.empty(matrices.shape, dtype=TORCH_DTYPES[FORMATS[format].element])
    scales = torch.empty(matrices.shape[:-1], dtype=kept)
    for number, matrix in enumerate(matrices):  # one at a time, so that what lies between stays small
        codes[number], scales[number] = _matrix(matrix.float(), FORMATS[format], kept)
    return codes.view(weights.shape), scales.view(*lead, *([] if group is None else [groups]))


def _matrix(weights: torch.Tensor, how: Codes, kept: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes and scales of f32 groups along the last dimension."""
    magnitudes = weights.abs()
    if how.divisor:
        scales = magnitudes.amax(-1) / how.divisor
    else:  # a running sum adds up in ascending order, as packing does
        scales = (magnitudes.double().cumsum(-1)[..., -1] / weights.shape[-1]).float()
    scales = scales.to(kept)
    quotients = weights / scales.float().unsqueeze(-1)
    codes = quotients.clamp(how.lowest, how.highest).nan_to_num(0.0)
    return (codes if how.floats else codes.round()).to(TORCH_DTYPES[how.element]), scales
