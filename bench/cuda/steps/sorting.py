"""The order of slots, and which of them an expert has room for."""

from __future__ import annotations

import math

import torch
from torch import Tensor

BLOCKS = 128
"""Blocks that share the slots of a call with many."""


def sorted_slots(index: Tensor, experts: int) -> tuple[Tensor, Tensor]:
    """offsets [experts + 1] and the slots in order; numbers outside of the experts are empty slots."""
    flat = index.reshape(-1).long()
    real = (flat >= 0) & (flat < experts)
    order = torch.where(real, flat, experts).argsort(stable=True)[: int(real.sum())]
    counts = torch.bincount(flat[real], minlength=experts)
    return torch.cat((counts.new_zeros(1), counts.cumsum(0))), order


def capacity_limit(slots: int, experts: int, factor: float, minimum: int) -> int:
    """How many of so many slots an expert has room for."""
    return max(minimum, math.ceil(slots * factor / experts))


def within_capacity(index: Tensor, weight: Tensor, experts: int, factor: float, minimum: int, order: str) -> Tensor:
    """`index` [T, K] with the slots emptied that an expert has no room for."""
    tokens, per_token = index.shape
    limit = capacity_limit(index.numel(), experts, factor, minimum)
    queue = torch.arange(index.numel(), device=index.device)
    if order == "choice":
        queue = queue.reshape(tokens, per_token).T.reshape(-1)
    elif order == "score":
        queue = weight.reshape(-1).sort(descending=True, stable=True).indices
    flat = index.reshape(-1)
    offsets, places = sorted_slots(flat[queue], experts)
    kept = torch.full_like(flat, -1)
    for first, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        within = queue[places[first : min(end, first + limit)]]
        kept[within] = flat[within]
    return kept.reshape(index.shape)


def counts_of_blocks(index: Tensor, experts: int, by_choice: bool) -> Tensor:
    """[BLOCKS, experts]: how many slots of each block's share have each expert.

    Blocks share the tokens, or, with `by_choice`, the first slots of all tokens, then the second ones, and so on.
    """
    flat = (index.T if by_choice else index).reshape(-1)
    each = -(-len(flat) // BLOCKS) if by_choice else -(-len(index) // BLOCKS) * index.shape[1]
    block = torch.arange(len(flat), device=index.device) // max(1, each)
    real = (flat >= 0) & (flat < experts)
    made = torch.bincount((block * experts + flat)[real], minlength=BLOCKS * experts)
    return made.reshape(BLOCKS, experts)
