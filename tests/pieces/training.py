"""A step of training by the pieces of a layer, one after the other in one process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

import moec
from moec.artifact.container import read
from moec.runtime.gradients import operator
from moec.runtime.module import Layer
from moec.runtime.step import Step
from tests.pieces.chain import compiled

Tensors = dict[str, torch.Tensor]


@dataclass
class Piece:
    """A piece with its weights; `ahead` and `back` are its functions for training."""

    layer: Layer
    weights: Tensors

    @property
    def step(self) -> Step:
        step = self.layer._store.kernel.step
        assert step is not None
        return step

    def ahead(self, given: Tensors) -> Tensors:
        operator()
        found = torch.ops.moec.forward(*self._taken(given), *self._code())
        return dict(zip((one.name for one in self.step.results), found, strict=True))

    def back(self, given: Tensors, saved: Tensors, d: Tensors) -> Tensors:
        """Gradients by name; those of results that `d` lacks are zeros."""
        step = self.step
        size = len(next(iter(given.values())))
        results = step.results
        seeds = [
            d.get(results[i].name, torch.zeros(results[i].shape(size), dtype=results[i].dtype)) for i in step.seeds
        ]
        kept = [saved[one.name] for one in step.saved]
        inputs, weights = self._taken(given)
        found = torch.ops.moec.backward(inputs, weights, kept, seeds, *self._code())
        names = self.layer.manifest.training
        assert names is not None
        return dict(zip(names.gradients, found, strict=True))

    def _taken(self, given: Tensors) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        manifest = self.layer.manifest
        return [given[one.name] for one in manifest.inputs], [self.weights[one.name] for one in manifest.parameters]

    def _code(self) -> tuple[str, str]:
        code = self.layer._store.kernel
        return code.library.sha256, code.variant


@dataclass
class Trained:
    """A layer in one process, and the pieces of it with the same weights."""

    whole: Layer
    pieces: dict[str, Piece]
    experts: list[Piece]
    holders: tuple[tuple[int, ...], ...]

    def step(
        self, x: torch.Tensor, dy: torch.Tensor, losses: Callable[[Tensors], Tensors]
    ) -> tuple[torch.Tensor, Tensors]:
        """The result and all gradients; `losses` maps what `route` gives to gradients of the tensors of losses."""
        routed = self.pieces["route"].ahead({"x": x})
        index, weight = routed["index"], routed["weight"]
        if "capacity" in self.pieces:
            index = self.pieces["capacity"].layer(index, weight)
        tokens, slots = index.shape
        places = torch.full((tokens, slots), -1, dtype=torch.int32)
        rows = torch.zeros(tokens, slots, dy.shape[1])
        back = torch.zeros(tokens * slots, x.shape[1], dtype=x.dtype)
        d_weight, filled, gradients = torch.zeros(tokens, slots), 0, {}
        parts = []
        for rank, piece in enumerate(self.experts):
            held = torch.tensor([e for e, at in enumerate(self.holders) if at[0] == rank])
            t, s = torch.where(torch.isin(index, held))
            sent, source = torch.unique(t, return_inverse=True)
            size = max(len(t), len(sent)) + 1
            given = {"rows": _padded(x[sent], size, torch.nan), "source": _padded(source.int()[:, None], size, -1)}
            slot = torch.searchsorted(held, index[t, s].contiguous()).int()[:, None]
            given |= {"slot": _padded(slot, size, -1), "weight": _padded(weight[t, s][:, None], size, 0)}
            found = piece.ahead(given)
            rows.flatten(0, 1)[filled : filled + len(t)] = found["out"][: len(t)]
            places[t, s] = torch.arange(filled, filled + len(t), dtype=torch.int32)
            filled += len(t)
            parts.append((piece, given, found, sent, (t, s), held))
        order = torch.argsort(torch.where(index < 0, torch.iinfo(torch.int32).max, index), dim=1, stable=True)
        ordered = torch.gather(places, 1, order).contiguous()
        shared = self.pieces.get("shared_training", self.pieces.get("shared"))
        terms = {} if shared is None else shared.ahead({"x": x})
        collect = self.pieces.get("collect_training", self.pieces["collect"]).layer
        y = collect(*({"rows": rows, "places": ordered, **terms}[one.name] for one in collect.manifest.inputs))

        for piece, given, found, sent, (t, s), held in parts:
            size = len(given["rows"])
            d = piece.back(given, found, {"out": _padded(dy[sent], size, torch.nan)})
            back[places[t, s].long()] = d.pop("rows")[: len(t)]
            d_weight[t, s] = d.pop("weight")[: len(t), 0]
            for name, one in d.items():
                gradients.setdefault(name, torch.zeros(len(self.holders), *one.shape[1:], dtype=one.dtype))
                gradients[name][held] = one[: len(held)]
        total = torch.zeros(tokens, x.shape[1])
        for j in range(slots):
            here = ordered[:, j] >= 0
            total[here] += back[ordered[here, j].long()].float()
        d_route = self.pieces["route"].back({"x": x}, routed, {"weight": d_weight, **losses(routed)})
        d_tokens = d_route.pop("x").float()
        if shared is not None:
            d_shared = shared.back({"x": x}, terms, dict.fromkeys(terms, dy))
            d_tokens = d_shared.pop("x").float() + d_tokens
            gradients |= d_shared
        return y, {**gradients, **d_route, "x": (d_tokens + total).to(x.dtype)}


def trained(source: str, ranks: int = 2, seed: int = 0) -> Trained:
    """The layer of a file, spread over so many ranks."""
    path = compiled(source, ranks, training=True)
    artifact = read(path)
    parallel = artifact.manifest.parallel
    assert parallel is not None
    whole = moec.load(path, training=True).reset_parameters(seed)
    state = whole.state_dict()
    pieces = {name: _loaded(path, name, artifact.pieces[name], state) for name in artifact.pieces if name != "experts"}
    experts = []
    for rank in range(ranks):
        held = list(parallel.held(rank))
        mine = {n: _padded(v[held], parallel.slots, 0) for n, v in state.items() if len(v) == len(parallel.holders)}
        experts.append(_loaded(path, "experts", artifact.pieces["experts"], mine))
    return Trained(whole, pieces, experts, parallel.holders)


def _loaded(path: Path, name: str, data: bytes, weights: Tensors) -> Piece:
    file = path.with_name(f"{name}.so")
    file.write_bytes(data)
    return Piece(moec.load(file), weights)


def _padded(one: torch.Tensor, size: int, value: float) -> torch.Tensor:
    whole = torch.full((size, *one.shape[1:]), value, dtype=one.dtype)
    whole[: len(one)] = one
    return whole
