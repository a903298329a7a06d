"""What else computes the layer on a GPU: a loop over experts, and torch._grouped_mm behind a sort."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch.nn.functional import silu

from bench.cuda.shapes import Shape

Weights = Mapping[str, torch.Tensor]
Peer = Callable[[Shape, Weights, torch.Tensor], torch.Tensor]


def route(shape: Shape, weights: Weights, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Experts [T, k] and their weights f32 [T, k]."""
    logits = x.float() @ weights["router.logits.weight"].T
    share, chosen = torch.softmax(logits, dim=1).topk(shape.top_k, dim=1)
    return chosen, share


def sort(chosen: torch.Tensor, experts: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The slots sorted by expert, and i32 [E], the end of each expert's.

    Without torch.bincount, which waits for the device, so that no CUDA graph can hold it.
    """
    sorted_experts, order = chosen.flatten().sort(stable=True)
    every = torch.arange(experts, device=chosen.device)
    return order, torch.searchsorted(sorted_experts, every, right=True, out_int32=True)


def loop(shape: Shape, weights: Weights, x: torch.Tensor) -> torch.Tensor:
    """One expert after the other, each on its tokens: what models without kernels of their own do."""
    chosen, share = route(shape, weights, x)
    y = torch.zeros_like(x)
    for expert in range(shape.experts):
        token, slot = torch.where(chosen == expert)
        if not len(token):
            continue
        rows = x[token]
        hidden = silu(rows @ weights["routed.gate.weight"][expert].T) * (rows @ weights["routed.up.weight"][expert].T)
        out = hidden @ weights["routed.down.weight"][expert].T
        y.index_add_(0, token, (out * share[token, slot, None]).to(x.dtype))
    return y


def grouped_mm(shape: Shape, weights: Weights, x: torch.Tensor) -> torch.Tensor:
    """Rows sorted by expert, torch._grouped_mm, and the way back."""
    chosen, share = route(shape, weights, x)
    order, ends = sort(chosen, shape.experts)
    rows = x[order // shape.top_k]
    gate = torch._grouped_mm(rows, weights["routed.gate.weight"].transpose(1, 2), offs=ends)
    up = torch._grouped_mm(rows, weights["routed.up.weight"].transpose(1, 2), offs=ends)
    out = torch._grouped_mm(silu(gate) * up, weights["routed.down.weight"].transpose(1, 2), offs=ends)
    back = torch.empty_like(out)
    back[order] = out
    return (back.view(len(x), shape.top_k, shape.d) * share[:, :, None]).sum(1).to(x.dtype)
