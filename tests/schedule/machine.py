"""A little machine that runs schedules on all ranks at once, its streams interleaved at random, and watches buffers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from moec.schedule.effects import Effects, Table, Value
from moec.schedule.mesh import Mesh
from moec.schedule.steps import Schedule, Step, Wiring


class Wrong(Exception):
    """A deadlock, an exchange in which ranks do different things, or a value that is not there."""


@dataclass
class Machine:
    """Ranks, their streams and what lies in their buffers; a value that is being written is no value."""

    programs: Sequence[Schedule]
    wiring: Wiring
    mesh: Mesh
    random: Random
    ended: list[set[str]] = field(default_factory=list)
    running: list[dict[str, Step]] = field(default_factory=list)
    queues: list[dict[str, list[Step]]] = field(default_factory=list)
    places: list[dict[tuple[str, int | None], Value | None]] = field(default_factory=list)
    begun: dict[tuple[int, tuple[str, ...]], list[Step]] = field(default_factory=dict)

    def run(self) -> None:
        """Until everything has ended.  Raises Wrong."""
        for program in self.programs:
            self.ended.append(set())
            self.running.append({})
            self.places.append({})
            self.queues.append({stream: list(steps) for stream, steps in program.streams().items()})
        while True:
            ready = [(rank, stream) for rank, queues in enumerate(self.queues) for stream in queues]
            ready = [at for at in ready if self._can_begin(*at) or self._can_end(*at)]
            if not ready:
                break
            rank, stream = self.random.choice(ready)
            if stream in self.running[rank]:
                self._end(rank, stream)
            else:
                self._begin(rank, stream)
        left = [
            f"{rank}: {steps[0].name}" for rank, queues in enumerate(self.queues) for steps in queues.values() if steps
        ]
        if left:
            raise Wrong(f"deadlock before {left}")
        for rank, program in enumerate(self.programs):
            for goal in Table(self.wiring, program).goals():
                self._expect(rank, goal)

    def _can_begin(self, rank: int, stream: str) -> bool:
        queue = self.queues[rank][stream]
        return stream not in self.running[rank] and bool(queue) and self.ended[rank].issuperset(queue[0].waits)

    def _can_end(self, rank: int, stream: str) -> bool:
        step = self.running[rank].get(stream)
        if step is None or not step.collective:
            return step is not None
        number = self.begun[rank, step.axes].index(step)
        group = self.mesh.group(rank, step.axes)
        there = [self.begun.get((peer, step.axes), [])[number : number + 1] for peer in group]
        for peer_steps in there:
            for other in peer_steps:
                if (other.kind, other.way, other.chunk, other.hop) != (step.kind, step.way, step.chunk, step.hop):
                    raise Wrong(f"{step.name} meets {other.name}")
        return all(there)

    def _effects(self, rank: int, step: Step) -> Effects:
        return Table(self.wiring, self.programs[rank]).of(step)

    def _expect(self, rank: int, value: Value) -> None:
        found = self.places[rank].get(value.place(self.programs[rank].buffers))
        if found != value:
            raise Wrong(f"rank {rank} has {found}, not {value}")

    def _begin(self, rank: int, stream: str) -> None:
        step = self.queues[rank][stream][0]
        effects = self._effects(rank, step)
        for value in effects.reads:
            self._expect(rank, value)
        for value in effects.writes:
            self.places[rank][value.place(self.programs[rank].buffers)] = None
        self.running[rank][stream] = step
        if step.collective:
            self.begun.setdefault((rank, step.axes), []).append(step)

    def _end(self, rank: int, stream: str) -> None:
        step = self.running[rank].pop(stream)
        effects = self._effects(rank, step)
        for value in effects.reads:
            self._expect(rank, value)
        for value in effects.writes:
            self.places[rank][value.place(self.programs[rank].buffers)] = value
        self.ended[rank].add(step.name)
        self.queues[rank][stream].pop(0)
