"""Lets the experts of compiled layers follow their load."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from moec.errors import PlacementError
from moec.placement.lookup import Lookup
from moec.placement.problem import Placement
from moec.placement.table import Table
from moec.runtime.adapt.journal import Journal
from moec.runtime.parallel.layer import ParallelLayer
from moec.runtime.parallel.moving.layers import Movable
from moec.runtime.parallel.moving.memory import PackedSlots, WholeWeights
from moec.runtime.parallel.moving.moving import Moving, Options
from moec.runtime.parallel.moving.rules import Rules

_COMPUTING = ("experts", "local")
"""Steps of a schedule whose time goes with a rank's load."""
_SAMPLED = 8
"""Calls of which one is asked how long its steps took."""


def follow(
    layers: Sequence[ParallelLayer],
    options: Options | None = None,
    *,
    journal: str | os.PathLike[str] | None = None,
) -> Moving:
    """Move the experts of `layers` as their load and their layouts ask for, until `Moving.stop`, or they are dropped.

    All ranks of the layers' mesh call this, with the same layers; those that serve must have weights.  Experts move
    between steps, and a call of the first layer begins a step of all of them.  On an elastic mesh the program says
    where steps begin, by `Moving.begin()`: before it takes tokens, as it may find that this rank does not serve
    (`Moving.join`).

    journal  a file to write down what is done and why, on this rank

    Raises PlacementError for layers of different meshes, and for such as are trained: weights that change with every
    step cannot travel meanwhile.
    """
    first = layers[0]
    if any(layer.ranks != first.ranks for layer in layers):
        raise PlacementError("layers whose experts move together must be on the same ranks")
    if any(layer.trainable for layer in layers):
        raise PlacementError("experts of a layer for training stay where they are; a checkpoint loads into any layout")
    watched = [_Watched(layer) for layer in layers]
    movable = [each.experts() for each in watched]
    elastic = len(first.ranks) > first.parallel.mesh.ranks or not first.serves
    if elastic:
        movable += [each.rest() for each in watched]
    written = Journal(Path(journal)) if journal is not None else None
    moving = Moving(movable, first.ranks, options or Options(), written)

    def begin() -> None:
        watched[0].look()
        moving.begin()

    first.before_calls(watched[0].look if elastic else begin)
    for each in watched[1:]:
        each.layer.before_calls(each.look)
    return moving


@dataclass
class _Watched:
    """A layer, and how long its experts have taken."""

    layer: ParallelLayer
    seconds: float = 0.0
    _calls: int = field(default=0, init=False)

    def look(self) -> None:
        """Now and then, take what the last call has measured for those since the last time."""
        self._calls += 1
        if self._calls % _SAMPLED == 0 and (found := self.layer.timeline) is not None:
            took = sum(step.end - step.begin for step in found.steps if step.kind in _COMPUTING)
            self.seconds += _SAMPLED * took / 1e6

    def chosen(self) -> NDArray[np.int64]:
        return self.layer.statistics.snapshot().chosen.astype(np.int64)

    def experts(self) -> Movable:
        """What is in slots."""
        layer = self.layer
        self.chosen()  # counts from here on
        return Movable(
            layer.manifest.layer,
            PackedSlots(layer.pieces["experts"]._store),
            layer.table,
            layer.peers,
            self.chosen,
            lambda: self.seconds,
            lambda table: layer.prepare(table.grid[0]),
            self._use,
            Rules.of(layer.parallel),
        )

    def rest(self) -> Movable:
        """What every rank that serves has the same, as one expert that is everywhere."""
        layer = self.layer
        everywhere = Placement.even([range(layer.table.positions)])
        return Movable(
            f"{layer.manifest.layer}, what every rank has",
            WholeWeights([piece._store for name, piece in layer.pieces.items() if name != "experts"]),
            Table.first(everywhere, 1, layer.table.grid),
            layer.peers,
            lambda: np.zeros(1, np.int64),
            lambda: 0.0,
            lambda _: None,
            lambda *_: None,
            Rules(everywhere=True),
        )

    def _use(self, table: Table, lookup: Lookup | None) -> None:
        if table.grid != self.layer.table.grid:
            self.layer.span(table.grid[0])
        self.layer.use(table, lookup)
