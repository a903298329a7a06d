"""Pieces of a small layer in PyTorch, row by row the same bits in any batch; and the layer in one process.

An expert e of a row r gives weight * (scale_e * r + shift_e); the router chooses by fixed pseudo-random bits of the
token, so that adversarial routings are easy to make.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from moec.placement.table import Table
from moec.runtime.parallel.pieces import Pieces, Tensor


@dataclass(frozen=True)
class Small:
    """E experts, K of them a token, rows of D; an input `choice` i32 [T, K] says which."""

    experts: int = 6
    slots: int = 3
    columns: int = 8
    dtype: torch.dtype = torch.float32
    shared: bool = False
    capacity: int | None = None

    def expert(self, expert: torch.Tensor, rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """[P], [P, D], [P] -> f32 [P, D]."""
        number = expert.float()[:, None]
        return weight[:, None] * ((number + 1.5) * rows.float() + number)

    def weight(self, x: torch.Tensor, choice: torch.Tensor) -> torch.Tensor:
        return x.float()[:, :1] * 0.5 + choice.float() * 0.25 + 1.0

    def term(self, x: torch.Tensor) -> torch.Tensor:
        return x.float() * 3.0

    def keep(self, index: torch.Tensor) -> torch.Tensor:
        """The first `capacity` tokens of each expert, in the order of the batch."""
        kept = index.clone().view(-1)
        for expert in range(self.experts):
            kept[torch.nonzero(kept == expert)[self.capacity :, 0]] = -1
        return kept.view(index.shape)

    def single(self, x: torch.Tensor, choice: torch.Tensor) -> torch.Tensor:
        """The layer in one process."""
        weight = self.weight(x, choice)
        if self.capacity is not None:
            choice = self.keep(choice)
        total = torch.zeros((len(x), self.columns))
        for expert in range(self.experts):
            for k in range(self.slots):
                chosen = torch.nonzero(choice[:, k] == expert)[:, 0]
                numbers = torch.full((len(chosen),), expert)
                total[chosen] += self.expert(numbers, x[chosen], weight[chosen, k])
        if self.shared:
            total += self.term(x)
        return total.to(self.dtype)

    @property
    def forms(self) -> dict[str, tuple[tuple[Tensor, ...], tuple[Tensor, ...]]]:
        """What each piece takes and gives."""
        f32, i32 = torch.float32, torch.int32
        row, few, one = (self.columns,), (self.slots,), (1,)
        x, choice = Tensor("x", row, self.dtype), Tensor("choice", few, i32)
        index, weight = Tensor("index", few, i32), Tensor("weight", few, f32)
        term = (Tensor("term", row, f32),) if self.shared else ()
        pairs = (Tensor("rows", row, self.dtype), Tensor("source", one, i32), Tensor("slot", one, i32))
        returned = (Tensor("rows", (self.slots, self.columns), f32), Tensor("places", few, i32), *term)
        return {
            "route": ((x, choice), (index, weight)),
            "capacity": ((index, weight), (Tensor("kept", few, i32),)),
            "experts": ((*pairs, Tensor("weight", one, f32)), (Tensor("out", row, f32),)),
            "shared": ((x,), term),
            "collect": (returned, (Tensor("y", row, self.dtype),)),
        }

    def collect(self, rows: torch.Tensor, places: torch.Tensor, *terms: torch.Tensor) -> torch.Tensor:
        flat, total = rows.reshape(-1, self.columns), torch.zeros((len(places), self.columns))
        for k in range(self.slots):
            some = torch.nonzero(places[:, k] >= 0)[:, 0]
            total[some] += flat[places[some, k].long()]
        for term in terms:
            total += term
        return total.to(self.dtype)

    def pieces(self, table: Table, position: int, tp: int = 1, shared_tp: int = 1) -> Pieces:
        """Those of the rank at a position of experts; each of `tp` ranks adds its part to the sum,
        and each of `shared_tp` to what shared experts give."""
        held = torch.from_numpy(table.held[position].copy()).long()

        def experts(rows: torch.Tensor, source: torch.Tensor, slot: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
            expert = torch.where(slot[:, 0] >= 0, held[slot[:, 0].clamp(min=0)], 0)
            assert (expert >= 0).all(), "an empty slot was chosen"
            out = self.expert(expert, rows[source[:, 0].clamp(min=0)], scale[:, 0]) / tp
            return torch.where(slot >= 0, out, torch.nan)

        forms = self.forms
        return Pieces(
            route=Function(*forms["route"], lambda x, choice: (choice, self.weight(x, choice))),
            experts=Function(*forms["experts"], experts),
            collect=Function(*forms["collect"], self.collect),
            shared=Function(*forms["shared"], lambda x: self.term(x) / shared_tp) if self.shared else None,
            capacity=Function(*forms["capacity"], lambda index, _: self.keep(index))
            if self.capacity is not None
            else None,
        )


@dataclass(frozen=True)
class Function:
    """A piece that is a function of tensors; checks what it is given."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    compute: Callable[..., torch.Tensor | tuple[torch.Tensor, ...]]

    def __call__(self, inputs: Sequence[torch.Tensor], outputs: Sequence[torch.Tensor]) -> None:
        for tensor, spec in zip((*inputs, *outputs), (*self.inputs, *self.outputs), strict=True):
            assert tuple(tensor.shape) == (len(inputs[0]), *spec.row), f"{spec.name}: {tuple(tensor.shape)}"
            assert tensor.dtype is spec.dtype, f"{spec.name}: {tensor.dtype}"
            assert tensor.is_contiguous(), spec.name
        made = self.compute(*inputs)
        for out, one in zip(outputs, made if isinstance(made, tuple) else (made,), strict=True):
            out.copy_(one)


def choices(small: Small, tokens: int, kind: str, rng: np.random.Generator) -> torch.Tensor:
    """i32 [tokens, K]: "any" experts, some of them none; "one": all tokens choose expert 0; "none": nothing."""
    found = np.full((tokens, small.slots), -1, np.int32)
    for token in range(tokens):
        chosen = (
            rng.permutation(small.experts)[: small.slots] if kind == "any" else np.zeros(int(kind == "one"), np.int32)
        )
        found[token, : len(chosen)] = np.where(rng.random(len(chosen)) < 0.15, -1, chosen)
    return torch.from_numpy(found)
