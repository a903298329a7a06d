"""Symmetric quantisation of weights for the routes that take codes and scales."""

from __future__ import annotations

import torch


def per_channel(weights: torch.Tensor, largest: int = 127) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes i8 [E, N, K] of -largest..largest and scales f32 [E, N] of `weights` [E, N, K]."""
    codes, scales = grouped(weights, weights.shape[-1], largest)
    return codes, scales.squeeze(-1)


def grouped(weights: torch.Tensor, group: int, largest: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes i8 [E, N, K], scales f32 [E, N, K / group]; `group` neighbours along K share a scale max|w| / largest."""
    experts, n, k = weights.shape
    codes = torch.empty(weights.shape, dtype=torch.int8)
    scales = torch.empty(experts, n, k // group)
    for expert in range(experts):  # one at a time: a layer in f32 takes gigabytes
        values = weights[expert].float().view(n, k // group, group)
        scale = values.abs().amax(-1) / largest
        codes[expert] = (values / scale.clamp_min(1e-30).unsqueeze(-1)).round_().view(n, k).to(torch.int8)
        scales[expert] = scale
    return codes, scales
