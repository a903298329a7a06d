"""AMD's zentorch: f32, bf16 and int8 weights."""

from __future__ import annotations

from typing import Any

import torch

from bench.layer import Layer
from bench.limits.engine import cpu_flags
from bench.quantise import per_channel
from bench.routes.surroundings import Surroundings
from bench.routes.table import Run, Unavailable

INSTALL = "`make peers`, or pip install --no-deps zentorch==2.13.0.2 deprecated wrapt safetensors"


def _operator() -> Any:
    try:
        import zentorch  # noqa: F401
    except ImportError as why:
        raise Unavailable(f"zentorch is not installed ({why}): {INSTALL}") from why
    # Packed weights are kept by the address of the ordinary ones; addresses come back when a layer goes.
    torch.ops.zentorch.zentorch_flush_moe_weight_cache()
    return torch.ops.zentorch.zentorch_fused_moe


def experts(layer: Layer, format: str) -> Run:
    """`zentorch_fused_moe`, which packs on its first call."""
    operator = _operator()
    x_dtype = format
    scales: tuple[torch.Tensor, ...] = ()
    if format == "int8":
        if "avx512f" not in cpu_flags():
            raise Unavailable("its kernels for int8 end with status -21 on processors without AVX-512")
        x_dtype = "bf16"
        weights = layer.weights(x_dtype)
        gate_up, gate_up_scale = per_channel(weights["gate_up"])
        down, down_scale = per_channel(weights["down"])
        scales = (gate_up_scale, down_scale)
    else:
        weights = layer.weights(format)
        # Copies, because packing is done in place.
        gate_up, down = weights["gate_up"].clone(), weights["down"].clone()

    def call(y: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, index: torch.Tensor) -> None:
        operator(y, x, gate_up, down, None, None, weight, index, False, "silu", *scales)

    return Surroundings(layer.shape, weights).around(call)
