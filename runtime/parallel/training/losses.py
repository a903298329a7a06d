"""Auxiliary losses over the tokens of all ranks: those of `moec.runtime.losses` for the batch that they make together.

Every rank gets the value for the whole batch, and the gradient of its own tokens' part of it, so that the sum of the
ranks' gradients is that of one process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from moec.artifact.manifest import Loss
from moec.runtime.parallel.network import Group


def total(losses: Sequence[Loss], tensors: Mapping[str, torch.Tensor], everyone: Group, scale: float) -> torch.Tensor:
    """The sum of `losses`: f32, no dimensions; 0 where there are no tokens.

    tensors   of this rank's tokens, as far as losses need them: `probability` f32 [T, E], `count` i32 [E], `z` f32
              [T, 1]
    everyone  all ranks
    scale     of the gradients: more than 1 where parameters get the mean of the ranks' gradients
    """
    own = _sums(tensors)
    found = torch.empty((everyone.size, len(own)), dtype=torch.float64, device="cpu")
    everyone.gather(found, own.detach()[None], [1] * everyone.size, "sums of losses")
    batch = torch.zeros_like(found[0])
    for rank in found:
        batch += rank
    # The value of the batch, with a gradient for what is this rank's.
    live = batch + (own - own.detach()) * scale
    value = torch.zeros((), dtype=torch.float64, device="cpu")
    tokens = batch[0].clamp(min=1)
    for loss in losses:
        if loss.kind == "balance":
            experts = tensors["count"].shape[0]
            choices, mass = batch[2 : 2 + experts], live[2 + experts :]
            share = choices / choices.sum().clamp(min=1)
            value = value + loss.weight * (experts * (share * mass).sum() / tokens)
        else:
            value = value + loss.weight * live[1] / tokens
    return value.float()


def _sums(tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """f64: tokens, the sum of `z`, `count`, the sums of `probability`."""
    tokens = max((len(tensors[name]) for name in ("probability", "z") if name in tensors), default=0)
    parts = [torch.tensor([tokens], dtype=torch.float64, device="cpu")]
    z = tensors.get("z")
    parts.append(parts[0].new_zeros(1) if z is None else z.sum(dtype=torch.float64)[None])
    if "probability" in tensors:
        parts += [tensors["count"].double(), tensors["probability"].sum(0, dtype=torch.float64)]
    return torch.cat(parts)
