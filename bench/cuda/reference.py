"""The layer in float64, for some of the tokens, and how far a result is from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from bench.cuda.data import expert_matrix
from bench.cuda.shapes import Shape

TOLERANCE = 2e-2
"""Relative error of a row: three roundings to bf16 make 4e-3 of a wide one and up to 1e-2 of a narrow one."""

_TOO_CLOSE = 1e-3
"""Logits that differ by less may be ordered either way in f32."""


@dataclass(frozen=True)
class Outcome:
    """Of checking a result.

    worst     the largest relative error of a token's row
    tokens    how many were compared
    unclear   how many were left out because their choice of experts is a matter of rounding
    poisoned  elements of the whole result that are NaN
    """

    worst: float
    tokens: int
    unclear: int
    poisoned: int

    @property
    def ok(self) -> bool:
        return self.poisoned == 0 and self.worst <= TOLERANCE


def layer(shape: Shape, weights: Mapping[str, torch.Tensor], x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """float64 [T, d] of tokens x [T, d], and for each token whether its choice of experts is clear.

    Of equal logits the lower expert goes first.
    """
    wide = x.double()
    logits = wide @ weights["router.logits.weight"].double().T
    ranked, order = logits.sort(dim=1, descending=True, stable=True)
    chosen = order[:, : shape.top_k]
    share = torch.softmax(logits, dim=1).gather(1, chosen)
    clear = torch.ones(len(x), dtype=torch.bool, device=x.device)
    if shape.top_k < shape.experts:
        gap = ranked[:, shape.top_k - 1] - ranked[:, shape.top_k]
        clear = (gap > _TOO_CLOSE) | (gap == 0)
    y = torch.zeros_like(wide)
    for slot in range(shape.top_k):
        for expert in chosen[:, slot].unique().tolist():
            of_expert = chosen[:, slot] == expert
            rows = rounded(shape, wide[of_expert])
            gate = rows @ expert_matrix(weights, "gate", expert).T
            up = rows @ expert_matrix(weights, "up", expert).T
            hidden = torch.nn.functional.silu(gate) * up
            out = (
                rounded(shape, hidden.to(x.dtype).double() if shape.rounded else hidden)
                @ expert_matrix(weights, "down", expert).T
            )
            y[of_expert] += out * share[of_expert, slot, None]
    for n in range(len(shape.shared)):
        gate, up, down = (weights[f"common{n}.{name}.weight"].double() for name in ("gate", "up", "down"))
        for expert in range(len(gate)):
            hidden = torch.nn.functional.silu(wide @ gate[expert].T) * (wide @ up[expert].T)
            y += hidden @ down[expert].T
    return y, clear


def rounded(shape: Shape, rows: torch.Tensor) -> torch.Tensor:
    """What experts multiply: rows [R, K], or what int8 with a scale a row keeps of them."""
    if not shape.rounded:
        return rows
    scale = rows.abs().amax(1, keepdim=True).float().double() / 127
    return (rows / scale).nan_to_num(nan=0.0).round() * scale


def compare(
    shape: Shape, weights: Mapping[str, torch.Tensor], x: torch.Tensor, result: torch.Tensor, most: int = 256
) -> Outcome:
    """Compares `result` [T, d] for at most `most` of the tokens, the first and the last among them."""
    poisoned = int(result.isnan().sum())
    count = len(x)
    if count == 0:
        return Outcome(0.0, 0, 0, poisoned)
    picked = torch.randperm(count, device=x.device)[:most]
    picked = torch.cat((picked, torch.tensor([0, count - 1], device=x.device))).unique()
    expected, clear = layer(shape, weights, x[picked])
    error = (result[picked].double() - expected).norm(dim=1) / expected.norm(dim=1).clamp_min(1e-30)
    kept = error[clear]
    worst = float(kept.max()) if len(kept) else 0.0
    return Outcome(float("inf") if worst != worst else worst, int(clear.sum()), int((~clear).sum()), poisoned)
