"""What a person writes in PyTorch by hand: tokens sorted by expert, then a loop or `torch._grouped_mm`."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from bench.layer import Layer
from bench.routes.surroundings import Surroundings
from bench.routes.table import Run, Trainable, Unavailable


class _Loop:
    def __init__(self, layer: Layer, dtype: str, trained: bool = False) -> None:
        self.shape, self.weights = layer.shape, layer.weights(dtype)
        if trained:
            self.weights = {name: w.detach().requires_grad_() for name, w in self.weights.items()}
        self.around = Surroundings(self.shape, self.weights)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        weight, index = self.around.route(x)
        order = index.view(-1).argsort()
        counts = torch.bincount(index.view(-1), minlength=self.shape.experts).tolist()
        token, scale = order // self.shape.top_k, weight.view(-1)[order].to(x.dtype)
        rows, y, begin = x[token], self.around.shared(x), 0
        # Taken apart at once, so that a gradient is put together at once and not as a sum of padded ones.
        gate_up, down = self.weights["gate_up"].unbind(), self.weights["down"].unbind()
        for expert, count in enumerate(counts):
            if count:
                here = slice(begin, begin + count)
                gate, up = F.linear(rows[here], gate_up[expert]).chunk(2, -1)
                out = F.linear(F.silu(gate) * up, down[expert])
                y.index_add_(0, token[here], out * scale[here, None])
                begin += count
        return y


class _Grouped(_Loop):
    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        weight, index = self.around.route(x)
        order = index.view(-1).argsort()
        ends = torch.bincount(index.view(-1), minlength=self.shape.experts).cumsum(0).int()
        rows = x[order // self.shape.top_k]
        gate, up = torch._grouped_mm(rows, self.weights["gate_up"].transpose(1, 2), offs=ends).chunk(2, -1)
        out = torch._grouped_mm(F.silu(gate) * up, self.weights["down"].transpose(1, 2), offs=ends)
        inverse = torch.empty_like(order)
        inverse[order] = torch.arange(order.numel())
        slots = out[inverse].view(-1, self.shape.top_k, self.shape.d)
        return (slots * weight.to(out.dtype)[..., None]).sum(1) + self.around.shared(x)


def loop(layer: Layer, dtype: str) -> Run:
    """One matmul per expert on a contiguous slice of the sorted tokens, one index_add_ each."""
    return _Loop(layer, dtype)


def loop_training(layer: Layer, dtype: str) -> Trainable:
    """The same with gradients."""
    return _trainable(_Loop(layer, dtype, trained=True))


def grouped(layer: Layer, dtype: str) -> Run:
    """`torch._grouped_mm` over the sorted tokens."""
    _require_grouped_mm()
    return _Grouped(layer, dtype)


def grouped_training(layer: Layer, dtype: str) -> Trainable:
    """The same with gradients."""
    _require_grouped_mm()
    return _trainable(_Grouped(layer, dtype, trained=True))


def _require_grouped_mm() -> None:
    if not hasattr(torch, "_grouped_mm"):
        raise Unavailable(f"torch {torch.__version__} has no _grouped_mm")


def _trainable(run: _Loop) -> Trainable:
    return Trainable(run, {name: [weight] for name, weight in run.weights.items()})
