"""Runs schedules on a simulated mesh: discrete events, every link shared by what goes over it at the time.

A link serves its flows at equal rates (processor sharing, what TCP and fair switches come to).  An exchange of a group
is a flow on every link that its ranks use, and ends when the last of them has; its ranks then go on.  Ranks are
simulated one by one, so that a rank with hot experts makes those wait that wait for it, and no others.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

import numpy as np

from moec.errors import TraceError
from moec.schedule.demand import Demand, Flow, Load
from moec.schedule.links import Links
from moec.schedule.machine import Machine
from moec.schedule.predict import SLOWEST, Span, alone, label, taken_away
from moec.schedule.routing import Choices
from moec.schedule.steps import COMPUTE
from moec.trace import Sample, read


@dataclass(frozen=True)
class Simulation:
    """What came of one call.

    seconds  until the last rank has ended
    spans    the steps of the rank that ended last
    alone    seconds in which that rank exchanged and computed nothing
    busy     by axis, the part of the time in which the busiest link of that axis carries something
    """

    seconds: float
    spans: tuple[Span, ...]
    alone: float
    busy: dict[str, float]


@dataclass
class _Exchange:
    """An exchange of one group that goes on."""

    step: int
    ranks: Sequence[int]
    flows: int
    latency: float
    load: Sequence[float]


@dataclass
class _Compute:
    """A step that a rank computes: what is left of it, at what speed, as of when.

    version  tells the event that it waits for from all others
    """

    step: int
    left: float
    speed: float
    since: float
    version: int


def simulate(demand: Demand, machine: Machine) -> Simulation:
    """Simulate one call."""
    return _Run(demand, machine).run()


def simulate_trace(
    demand: Demand, machine: Machine, path: Path, most: int = 64, tokens: float | None = None
) -> list[Simulation]:
    """Simulate the samples of a recorded trace, `most` of them at even distances: their tokens, and their choices.

    Tokens are cut evenly over the ranks, or are `tokens` on each rank; all ranks' tokens choose as those of the sample
    did.  Raises TraceError for what is no trace, or one of a layer with other experts, and OSError.
    """
    header, samples = read(path)
    if header.experts != demand.layer.experts:
        raise TraceError(f"the trace is of {header.experts} experts, and the layer has {demand.layer.experts}")
    busy = [sample for sample in samples if sample.tokens and sum(sample.counts)]
    chosen = busy[:: max(1, -(-len(busy) // most))]
    return [simulate(replace(demand, load=_met(demand, sample, tokens)), machine) for sample in chosen]


def _met(demand: Demand, sample: Sample, given: float | None) -> Load:
    shares = np.asarray(sample.counts) / sum(sample.counts)
    choices = Choices(tuple(shares.tolist()), demand.layer.slots)
    tokens = sample.tokens / sample.calls / demand.mesh.size(demand.wiring.tokens) if given is None else given
    return replace(demand.load, tokens=tokens, choices=choices)


@dataclass
class _Run:
    demand: Demand
    machine: Machine
    now: float = 0.0
    events: list[tuple[float, int, str, int, int]] = field(default_factory=list)
    order: Iterator[int] = field(default_factory=count)

    def __post_init__(self) -> None:
        schedule, mesh = self.demand.schedule, self.demand.mesh
        self.steps = schedule.steps
        number = {step.name: i for i, step in enumerate(self.steps)}
        self.waits = [[number[name] for name in step.waits] for step in self.steps]
        self.behind: list[list[int]] = [[] for _ in self.steps]
        for i, waits in enumerate(self.waits):
            for before in waits:
                self.behind[before].append(i)
        streams = list(schedule.streams())
        self.stream = [streams.index(step.stream) for step in self.steps]
        self.queue = [[i for i, s in enumerate(self.stream) if s == at] for at in range(len(streams))]
        self.place = [self.queue[self.stream[i]].index(i) for i in range(len(self.steps))]
        ranks = mesh.ranks
        self.next = np.zeros((ranks, len(streams)), np.int64)
        self.running = np.zeros((ranks, len(streams)), np.bool_)
        self.begin = np.zeros((len(self.steps), ranks))
        self.end = np.full((len(self.steps), ranks), np.inf)
        self.seconds = {
            i: self.demand.seconds(step, self.machine).reshape(-1).tolist()
            for i, step in enumerate(self.steps)
            if not step.collective
        }
        self.groups = {step.axes: mesh.groups(step.axes) for step in self.steps if step.collective}
        self.group_of = {
            axes: {rank: at for at, group in enumerate(groups) for rank in group}
            for axes, groups in self.groups.items()
        }
        self.there = {
            (i, at): 0 for i, s in enumerate(self.steps) if s.collective for at in range(len(self.groups[s.axes]))
        }
        self.flow: dict[int, Flow] = {}
        self.links = Links(mesh, self.machine.links)
        self.exchanges: dict[tuple[int, int], _Exchange] = {}
        self.computing: list[_Compute | None] = [None] * ranks
        self.loads = [0.0] * ranks

    def run(self) -> Simulation:
        for rank in range(self.demand.mesh.ranks):
            for at in range(len(self.queue)):
                self.try_begin(rank, at)
        while self.events:
            self.now, _, what, one, other = heapq.heappop(self.events)
            if what == "compute":
                self.end_compute(one, other)
            elif what == "link":
                for done in self.links.advance(one, other, self.now):
                    self.drained(done)
                self.announce(one)
            else:
                self.end_exchange(one, other)
        return self.result()

    def push(self, time: float, what: str, one: int, other: int) -> None:
        heapq.heappush(self.events, (time, next(self.order), what, one, other))

    def try_begin(self, rank: int, at: int) -> None:
        """Begin the next step of a stream if it can."""
        place = int(self.next[rank, at])
        if self.running[rank, at] or place >= len(self.queue[at]):
            return
        step = self.queue[at][place]
        if any(self.end[before, rank] > self.now for before in self.waits[step]):
            return
        self.running[rank, at] = True
        self.begin[step, rank] = self.now
        if self.steps[step].collective:
            self.arrive(step, rank)
        else:
            self.compute(step, rank)

    def compute(self, step: int, rank: int) -> None:
        if self.steps[step].stream != COMPUTE:  # a relay: copying beside the stream that computes
            self.push(self.now + self.seconds[step][rank], "exchange", step, -1 - rank)
            return
        running = _Compute(step, self.seconds[step][rank], self.speed(rank), self.now, next(self.order))
        self.computing[rank] = running
        self.push(self.now + running.left / running.speed, "compute", rank, running.version)

    def speed(self, rank: int) -> float:
        return max(SLOWEST, 1.0 - self.loads[rank])

    def change_load(self, rank: int, by: float) -> None:
        """Exchanges take more or less of a rank's processor."""
        self.loads[rank] += by
        running = self.computing[rank]
        if running is not None:
            running.left -= (self.now - running.since) * running.speed
            running.since, running.speed = self.now, self.speed(rank)
            running.version = next(self.order)
            self.push(self.now + max(running.left, 0.0) / running.speed, "compute", rank, running.version)

    def end_compute(self, rank: int, version: int) -> None:
        running = self.computing[rank]
        if running is not None and running.version == version:
            self.computing[rank] = None
            self.finish(running.step, rank)

    def arrive(self, step: int, rank: int) -> None:
        """A rank has come to an exchange; the last of its group lets it begin."""
        axes = self.steps[step].axes
        group = self.group_of[axes][rank]
        self.there[step, group] += 1
        if self.there[step, group] < len(self.groups[axes][group]):
            return
        if step not in self.flow:
            self.flow[step] = self.demand.flow(self.steps[step])
        flow, ranks = self.flow[step], self.groups[axes][group]
        used = self.links.used(flow, self.steps[step], ranks)
        latency = max(self.machine.links[axis].latency for axis in axes) + self.machine.message * (flow.ranks - 1)
        exchange = _Exchange(step, ranks, len(used), latency, self.processor(flow, used, ranks, latency))
        self.exchanges[step, group] = exchange
        for rank_, load in zip(ranks, exchange.load, strict=True):
            if load:
                self.change_load(rank_, load)
        for link, moved in used:
            for done in self.links.add(link, (step, group), moved, self.now):
                self.drained(done)
            self.announce(link)
        if not used:
            self.push(self.now + latency, "exchange", step, group)

    def processor(
        self, flow: Flow, used: Sequence[tuple[int, float]], ranks: Sequence[int], latency: float
    ) -> list[float]:
        """Which part of each rank's processor an exchange takes if it has its links for itself."""
        if not (self.machine.processor or self.machine.handling) or not used:
            return [0.0] * len(ranks)
        takes = latency + max(moved / self.links.bandwidth(link) for link, moved in used)
        moved = flow.out.sum(0).reshape(-1)[list(ranks)] + flow.into.sum(0).reshape(-1)[list(ranks)]
        return [float(part) for part in taken_away(moved, flow.ranks, self.machine) / takes]

    def announce(self, link: int) -> None:
        """Say when a link will have carried the next of its flows."""
        found = self.links.next(link)
        if found is not None:
            self.push(found[0], "link", link, found[1])

    def drained(self, of: tuple[int, int]) -> None:
        exchange = self.exchanges[of]
        exchange.flows -= 1
        if not exchange.flows:
            self.push(self.now + exchange.latency, "exchange", *of)

    def end_exchange(self, step: int, group: int) -> None:
        if group < 0:
            self.finish(step, -1 - group)
            return
        exchange = self.exchanges.pop((step, group))
        for rank, load in zip(exchange.ranks, exchange.load, strict=True):
            if load:
                self.change_load(rank, -load)
        for rank in exchange.ranks:
            self.finish(step, rank)

    def finish(self, step: int, rank: int) -> None:
        self.end[step, rank] = self.now
        at = self.stream[step]
        self.running[rank, at] = False
        self.next[rank, at] += 1
        self.try_begin(rank, at)
        for other in self.behind[step]:
            if self.next[rank, self.stream[other]] == self.place[other]:
                self.try_begin(rank, self.stream[other])

    def result(self) -> Simulation:
        last = int(np.argmax(self.end.max(0)))
        spans = tuple(
            Span(s.name, label(s), s.stream, float(self.begin[i, last]), float(self.end[i, last]))
            for i, s in enumerate(self.steps)
        )
        seconds = float(self.end.max())
        return Simulation(seconds, spans, alone(spans), self.links.busy(seconds))
