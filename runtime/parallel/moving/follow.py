"""Lets the experts of compiled layers follow their load."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from moec.errors import PlacementError
from moec.runtime.adapt.journal import Journal
from moec.runtime.parallel.layer import ParallelLayer
from moec.runtime.parallel.moving.layers import Movable
from moec.runtime.parallel.moving.memory import PackedSlots, SlotMemory, TensorSlots
from moec.runtime.parallel.moving.moving import Moving, Options
from moec.runtime.parallel.moving.rules import Rules
from moec.runtime.parallel.timeline import Timeline

_COMPUTING = ("experts", "local")
"""Steps of a schedule whose time goes with a rank's load."""


def follow(
    layers: Sequence[ParallelLayer],
    options: Options | None = None,
    *,
    journal: str | os.PathLike[str] | None = None,
    states: Sequence[Mapping[str, torch.Tensor]] = (),
) -> Moving:
    """Move the experts of `layers` as their load and their layouts ask for, until `Moving.stop`.

    All ranks of the layers' mesh call this, with the same layers; they must have weights.  A call of the first layer
    begins a step of all of them, and experts move between steps.  In training mode a step begins where the program says
    so, by `Moving.begin()`: between the optimizer's step and the next forward.

    journal  a file to write down what is done and why, on this rank
    states   for each layer in training what else belongs to its experts and moves with them: tensors `[slots, ...]`
             such as an optimizer's averages

    Raises PlacementError for layers of different meshes.
    """
    first = layers[0]
    numbers = first.ranks
    if any(layer.ranks != numbers for layer in layers):
        raise PlacementError("layers whose experts move together must be on the same ranks")
    watched = [_Watched(layer, state) for layer, state in zip(layers, states or [{}] * len(layers), strict=True)]
    written = Journal(Path(journal)) if journal is not None else None
    moving = Moving([each.movable for each in watched], numbers, options or Options(), written)

    def begin() -> None:
        watched[0].look()
        if not (first.training and torch.is_grad_enabled()):
            moving.begin()

    first.before_calls(begin)
    for each in watched[1:]:
        each.layer.before_calls(each.look)
    return moving


@dataclass
class _Watched:
    """A layer, and how long its experts have taken."""

    layer: ParallelLayer
    state: Mapping[str, torch.Tensor]
    seconds: float = 0.0
    _seen: Timeline | None = field(default=None, init=False)

    def look(self) -> None:
        """Take what the last call has measured."""
        found = self.layer.timeline
        if found is not None and found is not self._seen:
            self._seen = found
            self.seconds += sum(step.end - step.begin for step in found.steps if step.kind in _COMPUTING) / 1e6

    def chosen(self) -> NDArray[np.int64]:
        return self.layer.statistics.snapshot().chosen.astype(np.int64)

    @property
    def movable(self) -> Movable:
        layer = self.layer
        self.chosen()  # counts from here on
        return Movable(
            layer.manifest.layer,
            self._memory(),
            layer.table,
            layer.peers,
            self.chosen,
            lambda: self.seconds,
            layer.use,
            Rules.of(layer.parallel),
        )

    def _memory(self) -> SlotMemory:
        experts = self.layer.pieces["experts"]
        if not self.layer.training:
            return PackedSlots(experts._store)
        return TensorSlots({**dict(experts.named_parameters()), **dict(experts.named_buffers()), **self.state})
