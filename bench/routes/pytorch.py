"""What a person writes in PyTorch by hand: tokens sorted by expert, then a loop or `torch._grouped_mm`."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from bench.layer import Layer
from bench.routes.table import Run, Unavailable


class _Sorted:
    """Routing and the shared experts, which both routes have in common."""

    def __init__(self, layer: Layer, dtype: str) -> None:
        self.shape = layer.shape
        self.weights = layer.weights(dtype)

    def route(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        p = torch.softmax(F.linear(x, self.weights["router"]).float(), -1)
        weight, index = torch.topk(p, self.shape.top_k, -1)
        return (weight / weight.sum(-1, keepdim=True) if self.shape.renormalise else weight), index

    def shared(self, x: torch.Tensor) -> torch.Tensor:
        if not self.shape.shared:
            return torch.zeros_like(x)
        gate, up = F.linear(x, self.weights["shared_gate_up"]).chunk(2, -1)
        return F.linear(F.silu(gate) * up, self.weights["shared_down"])


class _Loop(_Sorted):
    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        weight, index = self.route(x)
        order = index.view(-1).argsort()
        counts = torch.bincount(index.view(-1), minlength=self.shape.experts).tolist()
        token, scale = order // self.shape.top_k, weight.view(-1)[order].to(x.dtype)
        rows, y, begin = x[token], self.shared(x), 0
        for expert, count in enumerate(counts):
            if count:
                here = slice(begin, begin + count)
                gate, up = F.linear(rows[here], self.weights["gate_up"][expert]).chunk(2, -1)
                out = F.linear(F.silu(gate) * up, self.weights["down"][expert])
                y.index_add_(0, token[here], out * scale[here, None])
                begin += count
        return y


class _Grouped(_Sorted):
    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        weight, index = self.route(x)
        order = index.view(-1).argsort()
        ends = torch.bincount(index.view(-1), minlength=self.shape.experts).cumsum(0).int()
        rows = x[order // self.shape.top_k]
        gate, up = torch._grouped_mm(rows, self.weights["gate_up"].transpose(1, 2), offs=ends).chunk(2, -1)
        out = torch._grouped_mm(F.silu(gate) * up, self.weights["down"].transpose(1, 2), offs=ends)
        inverse = torch.empty_like(order)
        inverse[order] = torch.arange(order.numel())
        slots = out[inverse].view(-1, self.shape.top_k, self.shape.d)
        return (slots * weight.to(out.dtype)[..., None]).sum(1) + self.shared(x)


def loop(layer: Layer, dtype: str) -> Run:
    """One matmul per expert on a contiguous slice of the sorted tokens, one index_add_ each."""
    return _Loop(layer, dtype)


def grouped(layer: Layer, dtype: str) -> Run:
    """`torch._grouped_mm` over the sorted tokens."""
    if not hasattr(torch, "_grouped_mm"):
        raise Unavailable(f"torch {torch.__version__} has no _grouped_mm")
    return _Grouped(layer, dtype)
