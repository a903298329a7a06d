"""What programs of rows choose, and how tensors are read by choices; an empty slot is -1."""

from __future__ import annotations

import torch
from torch import Tensor

_SAME = 1e-5
"""Scores, and sums of them, whose relative difference is smaller may be ordered either way in f32."""


def best(scores: Tensor, count: int, found: Tensor | None) -> Tensor:
    """The positions of the largest scores, of equal ones the lower first; what was found where it is as good."""
    ranked, order = scores.sort(dim=-1, descending=True, stable=True)
    order = order[..., :count]
    if found is None:
        return order
    good = _as_good(scores, ranked[..., :count], order, found).all(-1, keepdim=True) & _different(found)
    return torch.where(good, found, order)


def most(scores: Tensor, mass: float, count: int, found: Tensor | None) -> Tensor:
    """As many of the largest as reach `mass`, at most `count`, then empty slots; what was found where it is as good."""
    ranked, order = scores.sort(dim=-1, descending=True, stable=True)
    ranked, order = ranked[..., :count], order[..., :count]
    before = ranked.cumsum(-1) - ranked
    before[..., 0] = float("-inf")
    wanted = torch.where(before < mass, order, -1)
    if found is None:
        return wanted
    empty = found == -1
    enough, lacking = before >= mass * (1 - _SAME), before < mass * (1 + _SAME)
    good = torch.where(empty, enough, lacking & _as_good(scores, ranked, order, found))
    ended = (empty[..., 1:] >= empty[..., :-1]).all(-1, keepdim=True)
    placed = torch.where(empty, scores.shape[-1] + torch.arange(count, device=found.device), found)
    return torch.where(good.all(-1, keepdim=True) & ended & _different(placed), found, wanted)


def _as_good(scores: Tensor, ranked: Tensor, order: Tensor, found: Tensor) -> Tensor:
    """For each position whether its score is that of the rank; equal scores are equal in f32, too: there the lower
    position is the only right one."""
    inside = (found >= 0) & (found < scores.shape[-1])
    taken = scores.gather(-1, found.clamp(0, scores.shape[-1] - 1))
    near = (taken - ranked).abs() <= _SAME * ranked.abs()
    return inside & near & ((taken != ranked) | (found == order))


def _different(found: Tensor) -> Tensor:
    ascending = found.sort(-1).values
    return (ascending[..., 1:] != ascending[..., :-1]).all(-1, keepdim=True)


def take(values: Tensor, index: Tensor) -> Tensor:
    """values[..., index], 0 at empty slots."""
    found = values.gather(-1, index.clamp(0, values.shape[-1] - 1))
    return torch.where(index >= 0, found, torch.zeros((), dtype=values.dtype, device=values.device))


def put(values: Tensor, index: Tensor, size: int) -> Tensor:
    """The inverse, [..., size]: values of one place are added up, and those of empty slots left out."""
    values, index = torch.broadcast_tensors(values, index)
    into = torch.zeros((*values.shape[:-1], size + 1), dtype=values.dtype, device=values.device)
    return into.scatter_add(-1, torch.where(index >= 0, index, size), values)[..., :size]


def chosen(index: Tensor, size: int) -> Tensor:
    """bool [..., size]: the positions that `index` holds."""
    return (index[..., None] == torch.arange(size, device=index.device)).any(-2)
