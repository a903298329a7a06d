"""How long a call is predicted to take on a board: the tile's cycles, slowed down where the memory cannot keep up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

from moec.fixed.design import Design
from moec.fixed.layout import layout
from moec.fixed.model import cycles
from moec.fixed.model.traffic import stretch


@dataclass(frozen=True)
class Prediction:
    """A call on a board.

    latency  cycles, one part after another
    loading  cycles in which weights of experts come in
    busy     cycles in which the array works on experts
    seconds  all cycles, at the board's clock
    """

    latency: cycles.Latency
    loading: int
    busy: int
    seconds: float

    @property
    def bound(self) -> str:
        """What takes longer: "memory" or "array"."""
        return "memory" if self.loading > self.busy else "array"


def predict(design: Design, counts: Sequence[int]) -> Prediction:
    """A call whose routed experts get `counts` tokens."""
    slower = stretch(design)
    planned = [cycles.Visit(ceil(v.beats * slower), v.busy) for v in cycles.visits(design, counts)]
    exact = cycles.call(design, counts)
    busy = sum(visit.busy for visit in planned)
    tokens = ceil(sum(counts) / design.layer.router.slots)
    where, gates = layout(design), min(design.layer.router.tasks, tokens)
    latency = replace(
        exact,
        table=exact.table + ceil(where.table.beats * slower) - where.table.beats,
        route=exact.route + gates * (ceil(where.gate.beats * slower) - where.gate.beats),
        experts=cycles.tile(design, planned, tokens).experts,
        waits=cycles.overlapped(design, planned) - busy,
    )
    return Prediction(latency, sum(visit.beats for visit in planned), busy, latency.total / design.board.clock)
