"""Routers and experts written by hand in PyTorch float64, from the papers' formulas and from nothing of moec's.

A router maps (x [T, d], parameters by name, inputs by name, options) to a dense gate matrix [T, E]: the weight of every
expert for every token, NaN-free zeros where it is not chosen.  A layer is then sum over e of gate[:, e] * expert_e(x).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

Tensors = Mapping[str, Tensor]
Router = Callable[..., Tensor]


def gate_of(scores: Tensor, picks: Tensor, weights: Tensor) -> Tensor:
    """Dense gate with `weights` at `picks`, [T, E] like `scores`."""
    return torch.zeros_like(scores).scatter(1, picks, weights)


def top_k_softmax(logits: Tensor, k: int, renorm: bool) -> Tensor:
    p = logits.softmax(-1)
    weights, picks = p.topk(k, -1)
    return gate_of(p, picks, weights / weights.sum(-1, keepdim=True) if renorm else weights)


def switch(logits: Tensor) -> Tensor:
    """arXiv:2101.03961: the expert of the largest probability, weighted by it."""
    return top_k_softmax(logits, 1, renorm=False)


def mixtral(logits: Tensor, k: int) -> Tensor:
    """arXiv:2401.04088: softmax over the chosen logits only."""
    weights, picks = logits.topk(k, -1)
    return gate_of(logits, picks, weights.softmax(-1))


def deepseek_v3(
    logits: Tensor, bias: Tensor, k: int, groups: int, top_groups: int, renorm: bool, scale: float
) -> Tensor:
    """arXiv:2412.19437: sigmoid scores; groups by the sum of their two best biased scores; the bias only selects."""
    s = logits.sigmoid()
    biased = s + bias
    grouped = biased.view(len(s), groups, -1)
    best = grouped.topk(2, -1).values.sum(-1).topk(top_groups, -1).indices
    allowed = torch.zeros(len(s), groups, dtype=torch.bool).scatter(1, best, True)
    masked = grouped.masked_fill(~allowed[..., None], -torch.inf).flatten(1)
    picks = masked.topk(k, -1).indices
    weights = s.gather(1, picks)
    if renorm:
        weights = weights / weights.sum(-1, keepdim=True)
    return gate_of(s, picks, weights * scale)


def moge(logits: Tensor, k: int, groups: int) -> Tensor:
    """arXiv:2505.21411 (Pangu Pro): softmax over all experts, the k/groups best inside every group."""
    p = logits.softmax(-1)
    grouped = p.view(len(p), groups, -1)
    weights, picks = grouped.topk(k // groups, -1)
    picks = picks + torch.arange(groups)[:, None] * grouped.shape[-1]
    return gate_of(p, picks.flatten(1), weights.flatten(1))


def top_p(logits: Tensor, mass: float, most: int) -> Tensor:
    """arXiv:2403.07652: the smallest set of experts whose probability reaches `mass`."""
    p = logits.softmax(-1)
    weights, picks = p.sort(-1, descending=True)
    before = weights.cumsum(-1) - weights
    chosen = before < mass
    chosen[:, 0] = True
    chosen[:, most:] = False
    return gate_of(p, picks, torch.where(chosen, weights, torch.zeros_like(weights)))


def adamoe(logits: Tensor, k: int, experts: int) -> Tensor:
    """arXiv:2406.13233: top-k over true and null experts; weights renormalised over the true ones."""
    p = logits.softmax(-1)
    weights, picks = p.topk(k, -1)
    gate = gate_of(p, picks, weights)[:, :experts]
    total = gate.sum(-1, keepdim=True)
    return torch.where(total > 0, gate / total, torch.zeros_like(gate))


def sigmoid_top(logits: Tensor, k: int, renorm: bool) -> Tensor:
    """sigma-MoE, arXiv:2310.10837 (renorm = False)."""
    s = logits.sigmoid()
    weights, picks = s.topk(k, -1)
    return gate_of(s, picks, weights / weights.sum(-1, keepdim=True) if renorm else weights)


def hashed(table: Tensor, token: Tensor, experts: int) -> Tensor:
    """arXiv:2106.04426: experts from a table by token id, weight 1 each."""
    picks = table[token.long()].long()
    return F.one_hot(picks, experts).sum(1).double()


def capacity(gate: Tensor, rank: Tensor, limit: int, order: str) -> Tensor:
    """Zero the gates beyond `limit` tokens an expert.  `rank` [T, E]: which choice of the token the expert was."""
    kept = torch.zeros_like(gate)
    for expert in range(gate.shape[1]):
        tokens = [t for t in range(len(gate)) if gate[t, expert] != 0]
        keys = {
            "token": lambda t: (t,),
            "choice": lambda t, e=expert: (int(rank[t, e]), t),
            "score": lambda t, e=expert: (-float(gate[t, e]), t),
        }[order]
        for t in sorted(tokens, key=keys)[:limit]:
            kept[t, expert] = gate[t, expert]
    return kept


def mlp(x: Tensor, up: Tensor, down: Tensor, act: Callable[[Tensor], Tensor]) -> Tensor:
    return act(x @ up.T) @ down.T


def glu(x: Tensor, gate: Tensor, up: Tensor, down: Tensor, act: Callable[[Tensor], Tensor]) -> Tensor:
    return (act(x @ gate.T) * (x @ up.T)) @ down.T


def clamped_swiglu(x: Tensor, w: Tensors, limit: float, alpha: float) -> Tensor:
    """gpt-oss: gate clamped from above, up on both sides, (up + 1) * gate * sigmoid(alpha * gate), with biases."""
    gate = (x @ w["gate.weight"].T + w["gate.bias"]).clamp(max=limit)
    up = (x @ w["up.weight"].T + w["up.bias"]).clamp(-limit, limit)
    return ((up + 1) * gate * (alpha * gate).sigmoid()) @ w["down.weight"].T + w["down.bias"]


def apply(x: Tensor, gate: Tensor, expert: Callable[[int, Tensor], Tensor]) -> Tensor:
    """The sum over experts of gate * expert(x)."""
    out = torch.zeros_like(x)
    for e in range(gate.shape[1]):
        chosen = gate[:, e] != 0
        if chosen.any():
            out[chosen] += gate[chosen, e, None] * expert(e, x[chosen])
    return out
