"""Pieces of a small layer with gradients, by hand, and a step of training of the layer in one process.

An expert e of a row r gives weight * (scale_e * r + shift_e); its parameters are [D].  Every sum over rows goes from
row to row in f32, as kernels do, so that bits can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from moec.placement.table import Table
from moec.runtime.parallel.pieces import Tensor
from moec.runtime.parallel.training.pieces import Made, TrainedPieces
from tests.bits import same_bits
from tests.parallel.reference import Function, Small

Tensors = Sequence[torch.Tensor]


def row_by_row(rows: torch.Tensor) -> torch.Tensor:
    """[P, D] -> [D]."""
    total = torch.zeros(rows.shape[1])
    for row in rows:
        total += row
    return total


def column_by_column(rows: torch.Tensor) -> torch.Tensor:
    """[P, D] -> [P]."""
    total = torch.zeros(len(rows))
    for column in rows.unbind(1):
        total += column
    return total


@dataclass(frozen=True)
class Trained:
    """A piece from functions that work on tensors."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    parameters: tuple[str, ...]
    compute: Callable[[Tensors, Tensors], tuple[torch.Tensor, ...]]
    differentiate: Callable[[Tensors, Tensors, Mapping[str, torch.Tensor]], Mapping[str, torch.Tensor]]
    losses: tuple[str, ...] = ()

    def __call__(self, inputs: Tensors, outputs: Tensors) -> None:
        raise NotImplementedError

    def forward(self, inputs: Tensors, parameters: Tensors) -> Made:
        Function(self.inputs, (), lambda *_: ())(inputs, [])  # checks them
        made = self.compute(inputs, parameters)
        count = len(self.outputs)
        outputs = {spec.name: one for spec, one in zip(self.outputs, made, strict=False)}
        return Made(outputs, dict(zip(self.losses, made[count:], strict=True)), [one.clone() for one in inputs])

    def backward(
        self, inputs: Tensors, parameters: Tensors, saved: Tensors, seeds: Mapping[str, torch.Tensor]
    ) -> Mapping[str, torch.Tensor]:
        for spec, one, before in zip(self.inputs, inputs, saved, strict=True):
            assert same_bits(one, before), f"{spec.name} is not what forward was given"
        return self.differentiate(inputs, parameters, seeds)


@dataclass(frozen=True)
class Layer(Small):
    """The same layer as `Small`, with parameters: scale, shift [E, D]; gain [D] of the shared term; bias [1]."""

    def parameters(self, seed: int = 5) -> dict[str, torch.Tensor]:
        random = torch.Generator().manual_seed(seed)
        shape = (self.experts, self.columns)
        return {
            "scale": torch.randn(shape, generator=random),
            "shift": torch.randn(shape, generator=random),
            "gain": torch.randn(self.columns, generator=random),
            "bias": torch.randn(1, generator=random),
        }

    def weights(self, x: torch.Tensor, choice: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return x.float()[:, :1] * bias + choice.float() * 0.25 + 1.0

    def pair(
        self, r: torch.Tensor, w: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor, d: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Gradients of pairs: of their rows, weights, scales and shifts; [P, D], [P], [P, D], [P, D]."""
        r, wide = r.float(), w[:, None]
        return wide * scale * d, column_by_column(d * (scale * r + shift)), wide * d * r, wide * d

    def step(
        self, x: torch.Tensor, choice: torch.Tensor, p: Mapping[str, torch.Tensor], dy: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """The layer's result and all gradients in one process, as `single` computes."""
        weight = self.weights(x, choice, p["bias"])
        kept = choice if self.capacity is None else self.keep(choice)
        y, dx, dweight = torch.zeros(x.shape), torch.zeros(x.shape), torch.zeros(choice.shape)
        found = {name: torch.zeros_like(one) for name, one in p.items()}
        d = dy.float()
        for expert in range(self.experts):
            scale, shift = p["scale"][expert], p["shift"][expert]
            at = torch.nonzero(kept == expert)
            tokens, places = at[:, 0], at[:, 1]
            w = weight[tokens, places]
            y[tokens] += w[:, None] * (scale * x[tokens].float() + shift)
            dr, dw, dscale, dshift = self.pair(x[tokens], w, scale, shift, d[tokens])
            dx[tokens] += dr
            dweight[tokens, places] = dw
            found["scale"][expert], found["shift"][expert] = row_by_row(dscale), row_by_row(dshift)
        dense = torch.zeros(x.shape)
        dense[:, 0] += column_by_column(dweight) * p["bias"]
        if self.shared:
            y += p["gain"] * x.float()
            dense = p["gain"] * d + dense
            found["gain"] = row_by_row(x.float() * d)
        found["bias"] = row_by_row((column_by_column(dweight) * x.float()[:, 0])[:, None])
        return {"y": y.to(self.dtype), "x": (dense + dx).to(self.dtype), **found}

    def trained(self, table: Table, position: int, tp: int = 1, shared_tp: int = 1) -> TrainedPieces:
        """The pieces of the rank at a position of experts; each of `tp` ranks adds its part to the sum,
        and each of `shared_tp` to what shared experts give."""
        held = torch.from_numpy(table.held[position].copy()).long()

        def d_route(given: Tensors, p: Tensors, seeds: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
            dw = column_by_column(seeds["weight"])
            dx = torch.zeros(given[0].shape)
            dx[:, 0] = dw * p[0]
            return {"x": dx, "bias": row_by_row((dw * given[0].float()[:, 0])[:, None])}

        def experts(given: Tensors, p: Tensors) -> tuple[torch.Tensor]:
            rows, source, slot, w = given
            assert ((slot < 0) | (held[slot.clamp(min=0)] >= 0)).all(), "an empty slot was chosen"
            at = slot[:, 0].clamp(min=0)
            out = w * (p[0][at] * rows[source[:, 0]].float() + p[1][at]) / tp
            return (torch.where(slot >= 0, out, 0.0),)

        def d_experts(given: Tensors, p: Tensors, seeds: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
            rows, source, slot, w = given
            at = slot[:, 0].clamp(min=0)
            taken, d = rows[source[:, 0]], seeds["out"].float()[source[:, 0]] / tp
            dr, dw, dscale, dshift = self.pair(taken, w[:, 0], p[0][at], p[1][at], d)
            some = slot >= 0
            grads = [
                torch.stack([row_by_row(one[slot[:, 0] == s]) for s in range(len(held))]) for one in (dscale, dshift)
            ]
            return {
                "rows": torch.where(some, dr, torch.nan).to(self.dtype),
                "weight": torch.zeros((len(rows), 1)).masked_scatter_(some, dw[some[:, 0]]),
                "scale": grads[0],
                "shift": grads[1],
            }

        def d_shared(given: Tensors, p: Tensors, seeds: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
            d = seeds["term"].float() / shared_tp
            return {"x": p[0] * d, "gain": row_by_row(given[0].float() * d)}

        forms = self.forms
        return TrainedPieces(
            route=Trained(*forms["route"], ("bias",), lambda g, p: (g[1], self.weights(*g, p[0])), d_route),
            experts=Trained(*forms["experts"], ("scale", "shift"), experts, d_experts),
            collect=Function(*forms["collect"], self.collect),
            shared=Trained(*forms["shared"], ("gain",), lambda g, p: (p[0] * g[0].float() / shared_tp,), d_shared)
            if self.shared
            else None,
            capacity=Function(*forms["capacity"], lambda index, _: self.keep(index))
            if self.capacity is not None
            else None,
        )
