"""How much each message carries and who knows it, as symbols: what holds of them holds for any routing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from moec.schedule.graph import Order, rank_order
from moec.schedule.mesh import Mesh
from moec.schedule.steps import Schedule, Step


@dataclass(frozen=True)
class Size:
    """How many rows and pairs of `chunk` go from `source` to `target` by `hop` of dispatch; combine sends them back.

    A number that routing decides.  The hop behind the last is the `gather`, where a source sends the same to all:
    target is None.
    """

    chunk: int | None
    hop: int
    source: int
    target: int | None


@dataclass(frozen=True)
class Message:
    """What one end of a message in an exchange of rows holds of it."""

    sender: int
    receiver: int
    size: Size


def sends(schedule: Schedule, step: Step, rank: int, group: Sequence[int]) -> list[Message]:
    """The messages that a rank sends, with the sizes that it gives them."""
    return [Message(rank, peer, _size(schedule, step, rank, peer)) for peer in group]


def receives(schedule: Schedule, step: Step, rank: int, group: Sequence[int]) -> list[Message]:
    """The messages that a rank receives, with the sizes that it makes room for."""
    return [Message(peer, rank, _size(schedule, step, peer, rank)) for peer in group]


def _size(schedule: Schedule, step: Step, sender: int, receiver: int) -> Size:
    hops = len(schedule.hops)
    if step.way == "dispatch":
        return (
            Size(step.chunk, hops, sender, None)
            if step.kind == "gather"
            else Size(step.chunk, step.hop, sender, receiver)
        )
    if step.kind == "reduce":  # what the receiver gave to all comes back to it
        return Size(step.chunk, hops, receiver, None)
    return Size(step.chunk, hops - 1 - step.hop, receiver, sender)


def mismatches(programs: Sequence[Schedule], mesh: Mesh) -> Iterator[tuple[int, str, str]]:
    """(rank, step, what is wrong) of messages whose sizes differ at their ends, or that an end does not know in time.

    Programs must be matched: the k-th exchange over some axes is the same on all ranks of a group.
    """
    for rank, program in enumerate(programs):
        order = rank_order(program.steps)
        for step in program.steps:
            if _carries_rows(step):
                group = mesh.group(rank, step.axes)
                for message in (*sends(program, step, rank, group), *receives(program, step, rank, group)):
                    if program.direction == "forward" and not _knows(program, order, rank, message.size, step):
                        yield rank, step.name, f"rank {rank} does not know {message.size}"
    axes = {step.axes for program in programs for step in program.steps if _carries_rows(step)}
    for over in sorted(axes):
        for group in mesh.groups(over):
            of = {rank: [s for s in programs[rank].steps if _carries_rows(s) and s.axes == over] for rank in group}
            for steps in zip(*of.values(), strict=True):
                at = dict(zip(group, steps, strict=True))
                sent = {m for rank in group for m in sends(programs[rank], at[rank], rank, group)}
                expected = {m for rank in group for m in receives(programs[rank], at[rank], rank, group)}
                for message in sorted(sent ^ expected, key=str):
                    yield message.receiver, at[message.receiver].name, f"only one end has {message}"


def _knows(program: Schedule, order: Order[str], rank: int, size: Size, step: Step) -> bool:
    """Does a rank know a size when a step begins?

    What it sends first it has chosen; what it receives by a hop, and with it what it sends on by the next, the `counts`
    of that hop tell.
    """
    told = size.hop - 1 if size.source == rank else size.hop
    return told < 0 or any(order.before(c.name, step.name) for c in program.of("counts") if c.hop == told)


def _carries_rows(step: Step) -> bool:
    return step.collective and step.way in ("dispatch", "combine")
