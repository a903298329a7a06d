"""Auxiliary losses that a layer's file asks for, computed in PyTorch from what `forward` gives for them.

balance  w * E * sum_e f_e * P_e: f_e the share of all choices that fell on expert e (a constant to autograd), P_e the
         mean of the router's probability of e (Switch Transformer, arXiv:2101.03961).  `over = global` takes both over
         the tokens of all processes (arXiv:2501.11873).
z        w * mean over tokens of logsumexp(logits)^2 (ST-MoE, arXiv:2202.08906)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist

from moec.artifact.manifest import Loss


def total(losses: Sequence[Loss], tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The sum of `losses`: f32, no dimensions; 0 where there are no tokens.

    tensors  of these names, as far as losses need them: `probability` f32 [T, E], `count` i32 [E] (how often each
             expert was chosen), `z` f32 [T, 1]
    """
    value = torch.zeros((), dtype=torch.float64, device=next(iter(tensors.values())).device)
    for loss in losses:
        if loss.kind == "balance":
            everywhere = loss.over == "global" and dist.is_available() and dist.is_initialized()
            value = value + loss.weight * _balance(tensors["probability"], tensors["count"], everywhere)
        else:
            z = tensors["z"]
            value = value + loss.weight * z.sum(dtype=torch.float64) / max(z.shape[0], 1)
    return value.float()


def _balance(probability: torch.Tensor, count: torch.Tensor, everywhere: bool) -> torch.Tensor:
    # Sums in f64, so that their order (torch's threads) does not show in f32.
    tokens, experts = probability.shape
    mass = probability.sum(0, dtype=torch.float64)
    choices = count.double()
    if not everywhere:
        share = choices / choices.sum().clamp(min=1)
        return experts * (share * mass).sum() / max(tokens, 1)
    batch = torch.cat([choices, mass.detach(), mass.new_full((1,), tokens)])
    dist.all_reduce(batch)
    choices, everyones_mass, all_tokens = batch[:experts], batch[experts:-1], batch[-1].clamp(min=1)
    share = choices / choices.sum().clamp(min=1)
    # Processes average their gradients, so each one's own part of the sum counts as often as there are processes.
    own = mass * dist.get_world_size()
    return experts * (share * (own + (everyones_mass - own).detach())).sum() / all_tokens
