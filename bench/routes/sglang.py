"""SGLang's fused experts for CPUs, which vLLM's package carries: bf16, int8, int4; the last two with rows in int8."""

from __future__ import annotations

import torch

from bench.layer import Layer
from bench.quantise import grouped, per_channel
from bench.routes.surroundings import Surroundings
from bench.routes.table import Run, Unavailable
from bench.routes.vllm_library import operators, require_tiles

METHOD = {"bf16": 0, "int8": 1, "int4": 3}
AWQ = 0
AWQ_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)
"""Which nibble of a 32-bit word holds the first, second, … of 8 neighbouring outputs."""
INT4_GROUP = 32
INT4_ZERO = 8  # codes are kept as 0..15


def _awq(weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """AWQ's words of 8 outputs i32 [E, K, N/8], zero points i32 [E, K/group, N/8], scales bf16 [E, K/group, N]."""
    codes, scales = grouped(weights, INT4_GROUP, 7)
    experts, n, k = codes.shape
    words = torch.zeros(experts, k, n // 8, dtype=torch.int32)
    for place, nibble in enumerate(AWQ_ORDER):
        column = codes[:, place::8, :].transpose(1, 2).to(torch.int32) + INT4_ZERO
        words |= column << (4 * nibble)
    zero = torch.tensor(sum(INT4_ZERO << (4 * nibble) for nibble in range(8)) - (1 << 32), dtype=torch.int32)
    zeros = zero.expand(experts, k // INT4_GROUP, n // 8).contiguous()
    return words, zeros, scales.transpose(1, 2).bfloat16().contiguous()


def experts(layer: Layer, format: str) -> Run:
    """`fused_experts_cpu` on weights packed for dot products of 4 bytes or 2 bf16."""
    require_tiles(layer.shape)
    ops, weights = operators(), layer.weights("bf16")
    if not hasattr(ops, "fused_experts_cpu"):
        raise Unavailable("vLLM's build for this processor does not carry its kernels, which need AVX-512")
    packed: list[torch.Tensor] = []
    scales: list[torch.Tensor | None] = []
    zeros: list[torch.Tensor | None] = []
    for name in ("gate_up", "down"):
        scale = zero = None
        if format == "int4":
            words, zero, scale = _awq(weights[name])
            weight, zero, scale = ops.convert_weight_packed_scale_zp(words, zero, scale, AWQ)
        elif format == "int8":
            codes, scale = per_channel(weights[name])
            weight = ops.convert_weight_packed(codes)
        else:
            weight = ops.convert_weight_packed(weights[name])
        packed.append(weight)
        scales.append(scale)
        zeros.append(zero)
    # activation scale, block size, biases, alpha, limit: of other methods and other activations
    rest = (None, None, None, None, None, None, True)

    def call(y: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, index: torch.Tensor) -> None:
        ops.fused_experts_cpu(y, x, *packed, weight, index, METHOD[format], *scales, *zeros, *rest)

    return Surroundings(layer.shape, weights).around(call)
