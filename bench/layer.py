"""Weights, inputs and a float64 reference of a measured layer; every route gets the same."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from bench.formats import Format
from bench.shapes import Shape

TORCH_DTYPE = {"f32": torch.float32, "bf16": torch.bfloat16}
ZIPF_EXPONENT = 1.2
BUSY_SHARE = 28 / 128
"""Share of the experts that tokens choose under the routing "few"."""
NEVER = 1e-11
"""Probability of the others: beyond the reach of the noise that picks are drawn with."""
CHECKED_TOKENS = 32
WEIGHT_STD = 0.02


class Layer:
    """Random weights in real shapes. Every value is exact in bf16, so that bf16 and f32 compute the same layer.

    `weights(dtype)`: router [E, d], gate_up [E, 2 ff, d], down [E, d, ff] and, with shared experts, shared_gate_up
    [2 S ff, d] and shared_down [d, S ff], one fused expert as Hugging Face keeps them.
    """

    def __init__(self, shape: Shape, seed: int = 0) -> None:
        self.shape = shape
        generator = torch.Generator().manual_seed(seed)
        d, ff, experts, shared = shape.d, shape.ff, shape.experts, shape.shared * shape.ff

        def uniform(*size: int) -> torch.Tensor:
            bound = WEIGHT_STD * 3**0.5
            return torch.empty(*size).uniform_(-bound, bound, generator=generator).bfloat16()

        self._exact = {
            "router": (torch.randn(experts, d, generator=generator) / d**0.5).bfloat16(),
            "gate_up": uniform(experts, 2 * ff, d),
            "down": uniform(experts, d, ff),
        }
        if shared:
            self._exact |= {"shared_gate_up": uniform(2 * shared, d), "shared_down": uniform(d, shared)}
        self._cast: tuple[str, dict[str, torch.Tensor]] = ("bf16", self._exact)
        self._router = self._exact["router"].double()
        self._router_inverse = torch.linalg.pinv(self._router)

    def weights(self, dtype: str) -> dict[str, torch.Tensor]:
        """The weights in `dtype`; one copy beside the exact ones is kept, of the dtype asked for last."""
        if dtype == "bf16":
            return self._exact
        if self._cast[0] != dtype:
            self._cast = (dtype, {name: value.to(TORCH_DTYPE[dtype]) for name, value in self._exact.items()})
        return self._cast[1]

    def inputs(self, tokens: int, batches: int, routing: str, seed: int = 1) -> list[torch.Tensor]:
        """Float32 batches [tokens, d], exact in bf16, whose router picks are distributed as `routing` says.

        Logits are log p + Gumbel noise, so that the top k are k draws without replacement from p; x is solved from them
        through the router's pseudo-inverse. The picks get 1 more, so that no rounding can change them.
        """
        shape = self.shape
        generator = torch.Generator().manual_seed(seed)
        exponent = -ZIPF_EXPONENT if routing == "zipf" else 0.0
        p = torch.arange(1, shape.experts + 1, dtype=torch.double) ** exponent
        if routing == "few":
            p[max(shape.top_k, round(BUSY_SHARE * shape.experts)) :] = NEVER
        order = torch.randperm(shape.experts, generator=generator)
        p = p[order]
        out = []
        for _ in range(batches):
            uniform = torch.rand(tokens, shape.experts, generator=generator, dtype=torch.double)
            logits = p.log() - (-uniform.log()).log()
            if routing == "one":
                logits[:, order[0]] = logits.amax(-1) + 0.5
            picks = logits.topk(shape.top_k, -1).indices
            logits.scatter_add_(1, picks, torch.ones_like(picks, dtype=torch.double))
            x = torch.randn(tokens, shape.d, generator=generator, dtype=torch.double)
            x += (logits - x @ self._router.T) @ self._router_inverse.T
            out.append(x.bfloat16().float())
        return out

    def route(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights f64 and numbers [T, k] of the experts that each token picks."""
        p = torch.softmax(x.double() @ self._router.T, -1)
        weight, index = p.topk(self.shape.top_k, -1)
        return (weight / weight.sum(-1, keepdim=True) if self.shape.renormalise else weight), index

    def reference(self, x: torch.Tensor) -> torch.Tensor:
        """Float64 outputs of the first CHECKED_TOKENS tokens of `x`."""
        x = x[:CHECKED_TOKENS].double()
        weight, index = self.route(x)
        y = torch.zeros_like(x)
        exact = self._exact
        for expert in index.unique().tolist():
            token, slot = (index == expert).nonzero(as_tuple=True)
            gate, up = F.linear(x[token], exact["gate_up"][expert].double()).chunk(2, -1)
            out = F.linear(F.silu(gate) * up, exact["down"][expert].double())
            y.index_add_(0, token, out * weight[token, slot, None])
        if self.shape.shared:
            gate, up = F.linear(x, exact["shared_gate_up"].double()).chunk(2, -1)
            y += F.linear(F.silu(gate) * up, exact["shared_down"].double())
        return y

    def flop(self, tokens: int) -> float:
        """Multiplications and additions of the router and of the experts that `tokens` tokens visit."""
        shape = self.shape
        per_token = shape.expert_weights * (shape.top_k + shape.shared) + shape.d * shape.experts
        return 2.0 * tokens * per_token

    def touched_bytes(self, inputs: list[torch.Tensor], format: Format) -> float:
        """Mean bytes of the weights that a batch needs: distinct experts, shared experts, router (in x's dtype)."""
        shape = self.shape
        distinct = sum(self.route(x)[1].unique().numel() for x in inputs) / len(inputs)
        expert = format.matrix_bytes(2 * shape.ff, shape.d) + format.matrix_bytes(shape.d, shape.ff)
        router = shape.experts * shape.d * TORCH_DTYPE[format.x].itemsize
        return float(expert * (distinct + shape.shared) + router)


def relative_error(y: torch.Tensor, reference: torch.Tensor) -> float:
    """Frobenius norm of the difference over that of the reference."""
    difference = y[: len(reference)].detach().double() - reference
    return float(difference.norm() / reference.norm())
