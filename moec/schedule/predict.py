"""Predicted times of a schedule: every step after its stream and its signals, every exchange after its ranks.

The links of an exchange are taken to be its own: what goes over them at the same time for another stream is left to
`simulate`.  All ranks are computed at once, as arrays of the mesh's shape.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from moec.schedule.demand import Demand, Flow
from moec.schedule.machine import Machine
from moec.schedule.mesh import Mesh
from moec.schedule.routing import Array
from moec.schedule.steps import COMPUTE, Step

SLOWEST = 0.05
"""What is left of a rank's compute where exchanges take all of its processor."""
_ROUNDS = 30
_MOMENT = 1e-30


@dataclass(frozen=True)
class Span:
    """A step of one rank: seconds from the begin of the call to its own and to its end."""

    step: str
    kind: str
    stream: str
    begin: float
    end: float


@dataclass(frozen=True)
class Prediction:
    """What a schedule is expected to take.

    seconds   until the last rank has ended
    spans     the steps of the rank that ends last, in the order of the schedule
    bytes     by axis, what the most used link of that axis carries one way in a call
    alone     seconds in which that rank exchanges and computes nothing: what no overlap hides
    """

    seconds: float
    spans: tuple[Span, ...]
    bytes: dict[str, float]
    alone: float

    @property
    def phases(self) -> dict[str, float]:
        """Seconds by kind of step, whether or not they overlap."""
        found: dict[str, float] = {}
        for span in self.spans:
            found[span.kind] = found.get(span.kind, 0.0) + span.end - span.begin
        return found


def predict(demand: Demand, machine: Machine) -> Prediction:
    """Predict one call."""
    shape = demand.shape
    ends: dict[str, Array] = {}
    begins: dict[str, Array] = {}
    streams: dict[str, Array] = {}
    loads: list[_Processor] = []
    for step in demand.schedule.steps:
        begin = streams.get(step.stream, np.zeros(shape))
        for name in step.waits:
            begin = np.maximum(begin, ends[name])
        if step.collective:
            flow, together = demand.flow(step), _most(begin, demand, step.axes)
            takes = _most(exchange_seconds(flow, step, demand, machine), demand, step.axes)
            end = np.broadcast_to(together + takes, shape)
            if machine.processor or machine.handling:
                loads.append(_Processor(together, end, _load(flow, takes, machine)))
        else:
            end = begin + demand.seconds(step, machine)
            if step.stream == COMPUTE:
                end = _slowed(begin, end, loads)
        begins[step.name], ends[step.name], streams[step.stream] = begin, end, end
    last = np.unravel_index(int(np.argmax(np.max(list(streams.values()), axis=0))), shape)
    spans = tuple(
        Span(s.name, label(s), s.stream, float(begins[s.name][last]), float(ends[s.name][last]))
        for s in demand.schedule.steps
    )
    return Prediction(max(span.end for span in spans), spans, link_bytes(demand), alone(spans))


@dataclass(frozen=True)
class _Processor:
    """Which part of each rank's processor an exchange takes between two times."""

    begin: Array
    end: Array
    part: Array


def _load(flow: Flow, takes: Array, machine: Machine) -> Array:
    taken = taken_away(flow.out.sum(0) + flow.into.sum(0), flow.ranks, machine)
    part: Array = np.minimum(taken / np.maximum(takes, _MOMENT), 1 - SLOWEST)
    return part


def taken_away(moved: Array, ranks: int, machine: Machine) -> Array:
    """Seconds of compute that an exchange takes from each of so many ranks, `moved` bytes out of and into it."""
    return moved * machine.processor + 2 * (ranks - 1) * machine.handling


def _slowed(begin: Array, end: Array, loads: list[_Processor]) -> Array:
    """When a step ends of which exchanges take the processor meanwhile."""
    found = end
    for _ in range(_ROUNDS if loads else 0):
        taken = [np.maximum(np.minimum(found, one.end) - np.maximum(begin, one.begin), 0.0) * one.part for one in loads]
        found = end + sum(taken)
    return found


def label(step: Step) -> str:
    """What a step is reported as: `dispatch` and `combine` for exchanges and what belongs to them, else its kind."""
    return step.way if step.way in ("dispatch", "combine") else step.kind


def alone(spans: tuple[Span, ...]) -> float:
    """Seconds in which something is exchanged and nothing computed."""
    busy = _union((span.begin, span.end) for span in spans)
    computing = _union((span.begin, span.end) for span in spans if span.stream == COMPUTE)
    return sum(end - begin for begin, end in busy) - sum(end - begin for begin, end in computing)


def exchange_seconds(flow: Flow, step: Step, demand: Demand, machine: Machine) -> Array:
    """What an exchange takes each rank once all have come to it, if all groups exchange at once."""
    found = np.zeros(demand.shape)
    latency = 0.0
    for number, axis in enumerate(demand.mesh.axes):
        if axis.name in step.axes:
            link = machine.links[axis.name]
            latency = max(latency, link.latency)
            found = np.maximum(found, np.maximum(*_both(flow, number, demand.mesh)) / link.bandwidth)
    return found + latency + machine.message * (flow.ranks - 1)


def link_bytes(demand: Demand) -> dict[str, float]:
    """By axis, what the most used link carries one way in a call."""
    total: dict[str, Array] = {}
    for step in demand.schedule.steps:
        if step.collective:
            flow = demand.flow(step)
            for number, axis in enumerate(demand.mesh.axes):
                if axis.name in step.axes:
                    through = np.stack(_both(flow, number, demand.mesh))
                    total[axis.name] = total.get(axis.name, 0.0) + through
    return {axis: float(np.max(through)) for axis, through in total.items()}


def _both(flow: Flow, axis: int, mesh: Mesh) -> tuple[Array, Array]:
    """Bytes out of and into the link of every position along an axis: of all devices inside of it."""
    inner = tuple(range(axis + 1, len(mesh.axes)))
    return flow.out[axis].sum(inner, keepdims=True), flow.into[axis].sum(inner, keepdims=True)


def _most(values: Array, demand: Demand, axes: tuple[str, ...]) -> Array:
    """The largest number of every group of these axes, for its ranks."""
    dims = tuple(i for i, name in enumerate(demand.mesh.names) if name in axes)
    found: Array = np.broadcast_to(values, demand.shape).max(dims, keepdims=True)
    return found


def _union(spans: Iterator[tuple[float, float]]) -> list[tuple[float, float]]:
    found: list[tuple[float, float]] = []
    for begin, end in sorted(spans):
        if found and begin <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((begin, end))
    return found
