"""Schedules as checked JSON, and what of a layout decides which steps they have."""

from __future__ import annotations

from typing import Any

from moec.artifact.fields import Fields, InvalidManifest
from moec.artifact.parallel import MOST_CHUNKS, Parallel
from moec.schedule.mesh import MOST_AXES
from moec.schedule.steps import DIRECTIONS, KINDS, SPLITS, WAYS, Schedule, Schedules, Step, Wiring
from moec.schedule.verify import UnsoundSchedule, require_sound

MOST_STEPS = 2**13


def wiring(parallel: Parallel, capacity: bool) -> Wiring:
    """What a layout decides; `capacity`: does a capacity drop choices?

    Raises ValueError where groups of shared experts are cut over different axes: they are one step of a schedule.
    """
    cuts = {one.tp for one in parallel.shared}
    if len(cuts) > 1:
        raise ValueError("all shared experts must be cut over the same axes")
    return Wiring(
        mesh=parallel.mesh.names,
        tokens=parallel.tokens,
        ep=parallel.routed.ep,
        tp=parallel.routed.tp,
        shared=bool(parallel.shared),
        shared_tp=next(iter(cuts), ()),
        capacity=capacity,
    )


def schedules_data(schedules: Schedules) -> dict[str, Any]:
    """As JSON data, of which `read_schedules` makes an equal record."""
    given = schedules.wiring
    return {
        "wiring": {
            "mesh": list(given.mesh),
            "tokens": list(given.tokens),
            "ep": list(given.ep),
            "tp": list(given.tp),
            "shared": given.shared,
            "shared_tp": list(given.shared_tp),
            "capacity": given.capacity,
        },
        "forward": _schedule_data(schedules.forward),
        "backward": _schedule_data(schedules.backward) if schedules.backward else None,
    }


def _schedule_data(schedule: Schedule) -> dict[str, Any]:
    return {
        "direction": schedule.direction,
        "split": schedule.split,
        "chunks": schedule.chunks,
        "hops": [{"axes": list(axes)} for axes in schedule.hops],
        "deduplicate": schedule.deduplicate,
        "local_first": schedule.local_first,
        "buffers": schedule.buffers,
        "steps": [_step_data(step) for step in schedule.steps],
    }


def _step_data(step: Step) -> dict[str, Any]:
    return {
        "name": step.name,
        "kind": step.kind,
        "stream": step.stream,
        "waits": list(step.waits),
        "way": step.way,
        "chunk": step.chunk,
        "axes": list(step.axes),
        "hop": step.hop,
    }


def read_schedules(fields: Fields) -> Schedules:
    """Parse, check, and prove that no rank can hang.  Raises InvalidManifest."""
    schedules = Schedules(
        wiring=_wiring(fields.record("wiring")),
        forward=_schedule(fields.record("forward")),
        backward=_schedule(fields.record("backward")) if fields.given("backward") else None,
    )
    fields.finish()
    for name, schedule in (("forward", schedules.forward), ("backward", schedules.backward)):
        if schedule is not None and schedule.direction != name:
            raise InvalidManifest(f"{fields.path}.{name}.direction must be {name!r}")
    try:
        require_sound(schedules)
    except UnsoundSchedule as why:
        raise InvalidManifest(f"{fields.path}: {why}") from why
    return schedules


def _wiring(fields: Fields) -> Wiring:
    found = Wiring(
        mesh=fields.strings("mesh", MOST_AXES),
        tokens=fields.strings("tokens", MOST_AXES),
        ep=fields.strings("ep", MOST_AXES),
        tp=fields.strings("tp", MOST_AXES),
        shared=fields.boolean("shared"),
        shared_tp=fields.strings("shared_tp", MOST_AXES),
        capacity=fields.boolean("capacity"),
    )
    fields.finish()
    if len(set(found.mesh)) < len(found.mesh):
        raise InvalidManifest(f"{fields.path}.mesh: two axes have one name")
    for name in ("tokens", "ep", "tp", "shared_tp"):
        axes = getattr(found, name)
        if axes != tuple(axis for axis in found.mesh if axis in axes):
            raise InvalidManifest(f"{fields.path}.{name} must be axes of the mesh, outermost first")
    return found


def _schedule(fields: Fields) -> Schedule:
    chunks = fields.integer("chunks", 1, MOST_CHUNKS)
    schedule = Schedule(
        direction=fields.choice("direction", DIRECTIONS),
        split=fields.choice("split", SPLITS),
        chunks=chunks,
        hops=tuple(_axes(one) for one in fields.records("hops", 0, MOST_AXES)),
        deduplicate=fields.boolean("deduplicate"),
        local_first=fields.boolean("local_first"),
        buffers=fields.integer("buffers", 1, chunks),
        steps=tuple(_step(one, chunks) for one in fields.records("steps", 1, MOST_STEPS)),
    )
    fields.finish()
    return schedule


def _axes(fields: Fields) -> tuple[str, ...]:
    axes = fields.strings("axes", MOST_AXES)
    fields.finish()
    return axes


def _step(fields: Fields, chunks: int) -> Step:
    step = Step(
        name=fields.string("name"),
        kind=fields.choice("kind", KINDS),
        stream=fields.string("stream"),
        waits=fields.strings("waits", MOST_STEPS),
        way=fields.choice("way", WAYS) if fields.given("way") else None,
        chunk=fields.integer("chunk", 0, chunks - 1) if fields.given("chunk") else None,
        axes=fields.strings("axes", MOST_AXES),
        hop=fields.integer("hop", 0, MOST_AXES),
    )
    fields.finish()
    return step
