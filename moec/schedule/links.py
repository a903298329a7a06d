"""The links of a mesh as servers that share themselves evenly among their flows.

A link keeps a virtual time, which goes on at bandwidth / flows: a flow of b bytes that comes at virtual time v has been
carried at v + b, whatever comes and goes meanwhile.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from moec.schedule.demand import Flow
from moec.schedule.machine import Link
from moec.schedule.mesh import Mesh
from moec.schedule.steps import Step

Of = tuple[int, int]
"""Whose flow it is: a step, and which of its groups."""

_CLOSE = 1e-9


@dataclass
class _Server:
    """One link, one way.

    flows    (virtual time at which it has been carried, whose it is)
    version  changes whenever what was announced does not hold any more
    """

    bandwidth: float
    virtual: float = 0.0
    since: float = 0.0
    used: float = 0.0
    version: int = 0
    flows: list[tuple[float, Of]] = field(default_factory=list)

    def catch_up(self, now: float) -> None:
        if self.flows:
            self.virtual += (now - self.since) * self.bandwidth / len(self.flows)
            self.used += now - self.since
        self.since = now

    def carried(self) -> list[Of]:
        """Take away the flows that have been carried."""
        done = []
        while self.flows and self.flows[0][0] <= self.virtual * (1 + _CLOSE) + _CLOSE:
            done.append(heapq.heappop(self.flows)[1])
        return done


class Links:
    """All links of a mesh: for each axis one out of and one into every position of the axes up to it."""

    def __init__(self, mesh: Mesh, links: Mapping[str, Link]) -> None:
        self._mesh = mesh
        self._first: list[int] = []
        self._servers: list[_Server] = []
        for number, axis in enumerate(mesh.axes):
            self._first.append(len(self._servers))
            positions = int(np.prod(mesh.shape[: number + 1]))
            self._servers += [_Server(links[axis.name].bandwidth) for _ in range(2 * positions)]

    def bandwidth(self, link: int) -> float:
        return self._servers[link].bandwidth

    def used(self, flow: Flow, step: Step, ranks: Sequence[int]) -> list[tuple[int, float]]:
        """The links that one group of an exchange uses, and the bytes that it sends over each."""
        found: list[tuple[int, float]] = []
        members = np.asarray(ranks)
        for number, axis in enumerate(self._mesh.axes):
            if axis.name not in step.axes:
                continue
            inner = int(np.prod(self._mesh.shape[number + 1 :]))
            positions, at = np.unique(members // inner, return_inverse=True)
            for way, moved in enumerate((flow.out[number], flow.into[number])):
                total = np.bincount(at, moved.reshape(-1)[members], len(positions))
                first = self._first[number]
                found += [(first + 2 * int(p) + way, float(b)) for p, b in zip(positions, total, strict=True) if b > 0]
        return found

    def add(self, link: int, of: Of, moved: float, now: float) -> list[Of]:
        """A flow begins; gives those that have ended by now."""
        server = self._servers[link]
        server.catch_up(now)
        done = server.carried()
        heapq.heappush(server.flows, (server.virtual + moved, of))
        server.version += 1
        return done

    def advance(self, link: int, version: int, now: float) -> list[Of]:
        """What has been carried at the time that `next` said; nothing where something has changed since."""
        server = self._servers[link]
        if server.version != version:
            return []
        server.catch_up(now)
        server.virtual = max(server.virtual, server.flows[0][0])
        server.version += 1
        return server.carried()

    def next(self, link: int) -> tuple[float, int] | None:
        """When the next flow of a link will have been carried if nothing comes, and the version to ask for then."""
        server = self._servers[link]
        if not server.flows:
            return None
        left = max(server.flows[0][0] - server.virtual, 0.0)
        return server.since + left * len(server.flows) / server.bandwidth, server.version

    def busy(self, seconds: float) -> dict[str, float]:
        """By axis, which part of the time its busiest link carries something."""
        ends = [*self._first[1:], len(self._servers)]
        return {
            axis.name: max(server.used for server in self._servers[begin:end]) / seconds if seconds else 0.0
            for axis, begin, end in zip(self._mesh.axes, self._first, ends, strict=True)
        }
