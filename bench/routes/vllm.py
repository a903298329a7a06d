"""vLLM's fused experts for CPUs, the vectorised implementation (the other one needs AMX)."""

from __future__ import annotations

import torch

from bench.layer import Layer
from bench.routes.surroundings import Surroundings
from bench.routes.table import Run
from bench.routes.vllm_library import operators, require_tiles

ISA = "vec"


def experts(layer: Layer, format: str) -> Run:
    """`cpu_fused_moe` on weights in vLLM's packed order."""
    require_tiles(layer.shape)
    ops, weights = operators(), layer.weights(format)

    def packed(weight: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(weight)
        ops.prepack_moe_weight(weight, out, ISA)
        return out

    gate_up, down = packed(weights["gate_up"]), packed(weights["down"])

    def call(y: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, index: torch.Tensor) -> None:
        ops.cpu_fused_moe(y, x, gate_up, down, None, None, weight, index, False, "silu", ISA)

    return Surroundings(layer.shape, weights).around(call)
