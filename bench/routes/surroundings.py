"""Router, top-k and shared experts in PyTorch, for the routes that are kernels of experts alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F

from bench.routes.table import Run
from bench.shapes import Shape

Experts = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], object]
"""(y, x, weight f32 [T, k], index i32 [T, k]): writes the weighted sum of the picked experts of x [T, d] to y."""


class Surroundings:
    """What a layer has besides its routed experts; `weights` (bench.layer.Layer.weights) are in the dtype of x."""

    def __init__(self, shape: Shape, weights: Mapping[str, torch.Tensor]) -> None:
        self.shape = shape
        self.weights = {name: weight for name, weight in weights.items() if name not in ("gate_up", "down")}

    def route(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights f32 [T, k] and experts i64 [T, k] of each token."""
        p = torch.softmax(F.linear(x, self.weights["router"]).float(), -1)
        weight, index = torch.topk(p, self.shape.top_k, -1)
        return (weight / weight.sum(-1, keepdim=True) if self.shape.renormalise else weight), index

    def shared(self, x: torch.Tensor) -> torch.Tensor:
        """The shared experts' outputs [T, d]; zeros without any."""
        if not self.shape.shared:
            return torch.zeros_like(x)
        gate, up = F.linear(x, self.weights["shared_gate_up"]).chunk(2, -1)
        return F.linear(F.silu(gate) * up, self.weights["shared_down"])

    def around(self, experts: Experts) -> Run:
        """The whole layer."""

        def run(x: torch.Tensor) -> torch.Tensor:
            weight, index = self.route(x)
            y = torch.empty_like(x)
            experts(y, x, weight, index.int())
            return y.add_(self.shared(x)) if self.shape.shared else y

        return run
