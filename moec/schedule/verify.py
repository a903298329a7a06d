"""Proves that a schedule ends, on all ranks and for any routing, and that every step finds what it needs.

What is proved, of programs that may differ from rank to rank (`check_programs`):

1. every step stands on its stream, over its axes, once, and waits for steps that exist;
2. the ranks of a group take part in the same exchanges in the same order, each group from one stream;
3. waits, the orders of the streams, and exchanges (one node for all ranks of the group) together make no cycle, so that
   some step can always go on, however the streams interleave;
4. of every message the receiver knows the size before, and it is the one that the sender sends, whatever the routing:
   sizes are symbols, which `counts` steps tell;
5. every value is written before it is read, and a buffer is used again only when it was read: by the rank's own waits
   and streams alone.

A schedule is one program for all ranks.  `check` proves it on one rank, which is enough for any mesh of these axes: let
every rank's step stand for the step of that name.  An edge between steps of some ranks is then an edge between steps of
the one program, so a cycle through many ranks would be one there; and what ranks do in the same order is matched.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

from moec.schedule.effects import Table, Value, collected
from moec.schedule.graph import Order, Unordered, mesh_order, rank_order
from moec.schedule.mesh import Mesh
from moec.schedule.sizes import mismatches
from moec.schedule.steps import COMPUTE, Schedule, Schedules, Step, Wiring


@dataclass(frozen=True)
class Fault:
    """What is wrong: at which step (None: the whole), on which rank (None: on all)."""

    text: str
    step: str | None = None
    rank: int | None = None

    def __str__(self) -> str:
        where = [f"step {self.step}"] if self.step else []
        where += [f"rank {self.rank}"] if self.rank is not None else []
        return f"{', '.join(where)}: {self.text}" if where else self.text


class UnsoundSchedule(ValueError):
    """A schedule that could hang, or compute on what is not there; `faults` says where."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("; ".join(str(fault) for fault in faults[:3]))
        self.faults = tuple(faults)


def require_sound(schedules: Schedules) -> None:
    """Prove both directions.  Raises UnsoundSchedule."""
    given = [schedules.forward, *([schedules.backward] if schedules.backward else [])]
    faults = [fault for schedule in given for fault in check(schedule, schedules.wiring)]
    if faults:
        raise UnsoundSchedule(faults)


def check(schedule: Schedule, wiring: Wiring) -> tuple[Fault, ...]:
    """What is wrong with a schedule that all ranks run; nothing where it is proved."""
    faults = tuple(_form(schedule, wiring))
    if faults:
        return faults
    try:
        order = rank_order(schedule.steps)
    except Unordered as why:
        return (Fault(f"these steps wait for each other: {' -> '.join(why.cycle)}"),)
    return tuple(_values(schedule, wiring, order))


def check_programs(programs: Sequence[Schedule], wiring: Wiring, mesh: Mesh) -> tuple[Fault, ...]:
    """What is wrong with programs of which rank r runs `programs[r]`; nothing where they are proved."""
    faults = [replace(f, rank=rank) for rank, program in enumerate(programs) for f in check(program, wiring)]
    faults += _matched(programs, wiring, mesh)
    if faults:
        return tuple(faults)
    try:
        mesh_order([program.steps for program in programs], mesh)
    except Unordered as why:
        return (Fault(f"these steps wait for each other: {' -> '.join(why.cycle)}"),)
    return tuple(Fault(text, step, rank) for rank, step, text in mismatches(programs, mesh))


def _form(schedule: Schedule, wiring: Wiring) -> Iterator[Fault]:
    if sum(schedule.hops, ()) != wiring.ep:
        yield Fault(f"its hops must be over {', '.join(wiring.ep) or 'nothing'}")
    if not 1 <= schedule.buffers <= schedule.chunks:
        yield Fault("there must be one to as many buffers as chunks")
    names = Counter(step.name for step in schedule.steps)
    for name, times in names.items():
        if times > 1:
            yield Fault("there are several of this name", name)
    table = Table(wiring, schedule)
    for step in schedule.steps:
        for text in _misfits(step, table, names):
            yield Fault(text, step.name)


def _misfits(step: Step, table: Table, names: Counter[str]) -> Iterator[str]:
    schedule, wiring = table.schedule, table.wiring
    yield from (f"waits for {name}, which does not exist" for name in step.waits if name not in names)
    if not table.has(step):
        yield f"is of kind {step.kind} {step.way or ''}, which its direction or layout does not have"
        return
    axes = table.axes(step)
    if step.axes != axes:
        yield f"is over {', '.join(step.axes) or 'nothing'}, not over {', '.join(axes) or 'nothing'}"
    stream = wiring.stream(axes) if step.collective else COMPUTE
    if step.stream != stream and not (step.kind == "relay" and step.stream in _nets(schedule, wiring)):
        yield f"is on stream {step.stream}, not on {stream}"
    chunked = step.way in ("dispatch", "combine") or step.kind in ("pack", "experts")
    chunked |= step.kind == "collect" and None not in collected(schedule) and schedule.direction == "forward"
    chunked |= step.kind == "local" and table.near_in_chunks
    if chunked != (step.chunk is not None) or (step.chunk or 0) not in range(schedule.chunks):
        yield f"has chunk {step.chunk}"


def _nets(schedule: Schedule, wiring: Wiring) -> set[str]:
    return {wiring.stream(axes) for axes in schedule.hops}


def _values(schedule: Schedule, wiring: Wiring, order: Order[str]) -> Iterator[Fault]:
    """Faults of reading before writing, and of writing what is still to be read."""
    table = Table(wiring, schedule)
    effects = {step.name: table.of(step) for step in schedule.steps}
    writers: dict[Value, list[str]] = {}
    readers: dict[Value, list[str]] = {}
    for name, effect in effects.items():
        for value in effect.writes:
            writers.setdefault(value, []).append(name)
        for value in effect.reads:
            readers.setdefault(value, []).append(name)
    yield from (Fault(f"nothing makes {value}") for value in table.goals() if value not in writers)
    for value, names in writers.items():
        yield from (Fault(f"makes {value} again, as {names[0]} does", name) for name in names[1:])
    for value, names in readers.items():
        for name in names:
            if value not in writers:
                yield Fault(f"needs {value}, which nothing makes", name)
            elif not order.before(writers[value][0], name):
                yield Fault(f"does not wait for {value}, of {writers[value][0]}", name)
    places: dict[tuple[str, int | None], list[Value]] = {}
    for value in writers:
        places.setdefault(value.place(schedule.buffers), []).append(value)
    for values in places.values():
        yield from _reused(values, writers, readers, order)


def _reused(
    values: list[Value], writers: dict[Value, list[str]], readers: dict[Value, list[str]], order: Order[str]
) -> Iterator[Fault]:
    """Each two values of one place: all that touches the one must be behind all that touches the other."""
    for index, one in enumerate(values):
        for other in values[:index]:
            first, second = (one, other) if order.before(writers[one][0], writers[other][0]) else (other, one)
            for user in (writers[first][0], *readers.get(first, ())):
                if not order.before(user, writers[second][0]):
                    yield Fault(f"overwrites {first} while {user} may still use it", writers[second][0])


def _matched(programs: Sequence[Schedule], wiring: Wiring, mesh: Mesh) -> Iterator[Fault]:
    """Faults of ranks whose exchanges with each other differ."""
    if mesh.names != wiring.mesh or len(programs) != mesh.ranks:
        yield Fault("there must be a program for each rank of a mesh of these axes")
        return
    used = {step.axes for program in programs for step in program.steps if step.collective}
    for axes in sorted(used):
        for group in mesh.groups(axes) if set(axes) <= set(mesh.names) else ():
            first = _exchanges(programs[group[0]], axes)
            for rank in group[1:]:
                pairs = zip_longest(_exchanges(programs[rank], axes), first, fillvalue="none")
                differ = next(((at, own, of) for at, (own, of) in enumerate(pairs) if own != of), None)
                if differ is not None:
                    at, own, of = differ
                    said = f"its exchange {at} over {', '.join(axes)} is {own}, and that of rank {group[0]} is {of}"
                    yield Fault(said, rank=rank)


def _exchanges(program: Schedule, axes: tuple[str, ...]) -> list[str]:
    """What a rank exchanges over these axes, in order."""
    return [
        f"{step.kind} {step.way or ''} chunk {step.chunk} hop {step.hop}"
        for step in program.steps
        if step.collective and step.axes == axes
    ]
