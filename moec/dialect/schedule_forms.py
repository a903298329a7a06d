"""Schedules from operations, and operations from schedules."""

from dataclasses import asdict
from typing import Any

from torch_mlir import ir

from moec.dialect.json_attributes import from_attribute, to_attribute
from moec.schedule.steps import Schedule, Schedules, Step, Wiring

FORWARD, BACKWARD = "forward", "backward"


def schedules(module: ir.Module) -> Schedules | None:
    """The schedules of a module; None where it has none.

    Raises ValueError where there is a backward one only, or they are not for the same layout.
    """
    found = {
        str(from_attribute(op.operation.attributes["sym_name"])): op.operation
        for op in module.body.operations
        if op.operation.name == "moe.schedule"
    }
    if not found:
        return None
    if FORWARD not in found or len({str(read_wiring(op)) for op in found.values()}) > 1:
        raise ValueError("a module needs a schedule forward, and one backward for the same layout if any")
    backward = read_schedule(found[BACKWARD]) if BACKWARD in found else None
    return Schedules(read_wiring(found[FORWARD]), read_schedule(found[FORWARD]), backward)


def read_wiring(op: ir.Operation) -> Wiring:
    """The wiring of a `moe.schedule`.  Raises KeyError, TypeError or ValueError for attributes of another form."""
    return Wiring(**{name: _tuples(value) for name, value in from_attribute(op.attributes["wiring"]).items()})


def read_schedule(op: ir.Operation) -> Schedule:
    """The schedule of a `moe.schedule`.  Raises KeyError, TypeError or ValueError for attributes of another form."""
    given = {name: _tuples(from_attribute(op.attributes[name])) for name in _ATTRIBUTES}
    steps = []
    names: dict[ir.Value, str] = {}
    for each in op.regions[0].blocks[0].operations:
        step = _read_step(each.operation, names)
        names[each.operation.results[0]] = step.name
        steps.append(step)
    return Schedule(direction=from_attribute(op.attributes["sym_name"]), steps=tuple(steps), **given)


_ATTRIBUTES = ("split", "chunks", "hops", "deduplicate", "local_first", "buffers")


def _read_step(op: ir.Operation, names: dict[ir.Value, str]) -> Step:
    given = {name: from_attribute(op.attributes[name]) for name in ("kind", "way", "stream", "chunk", "hop")}
    given["way"] = given["way"] or None
    given["chunk"] = None if given["chunk"] < 0 else given["chunk"]
    axes = tuple(from_attribute(op.attributes["axes"])) if "axes" in op.attributes else ()
    waits = tuple(names[signal] for signal in op.operands)
    return Step(name=from_attribute(op.attributes["step"]), waits=waits, axes=axes, **given)


def write_schedules(module: ir.Module, made: Schedules) -> None:
    """Add the operations of schedules at the end of a module."""
    with ir.InsertionPoint(module.body):
        _write_schedule(made.forward, made.wiring)
        if made.backward is not None:
            _write_schedule(made.backward, made.wiring)


def _write_schedule(schedule: Schedule, wiring: Wiring) -> None:
    attributes = {name: to_attribute(_lists(getattr(schedule, name))) for name in _ATTRIBUTES}
    attributes |= {"sym_name": ir.StringAttr.get(schedule.direction), "wiring": to_attribute(_lists(asdict(wiring)))}
    op = ir.Operation.create("moe.schedule", attributes=attributes, regions=1)
    signal = ir.Type.parse("!moe.signal")
    signals: dict[str, ir.Value] = {}
    with ir.InsertionPoint(op.regions[0].blocks.append()):
        for step in schedule.steps:
            waits = [signals[name] for name in step.waits]
            given: dict[str, Any] = {
                "step": step.name, "kind": step.kind, "way": step.way or "", "stream": step.stream,
                "chunk": -1 if step.chunk is None else step.chunk, "hop": step.hop,
            }  # fmt: skip
            if step.collective:
                given["axes"] = list(step.axes)
            written = {name: to_attribute(value) for name, value in given.items()}
            name = "moe.exchange" if step.collective else "moe.run"
            signals[step.name] = ir.Operation.create(name, [signal], waits, written).result


def _lists(data: Any) -> Any:
    """The same with every tuple a list."""
    if isinstance(data, dict):
        return {name: _lists(value) for name, value in data.items()}
    return [_lists(one) for one in data] if isinstance(data, tuple) else data


def _tuples(data: Any) -> Any:
    """The same with every list a tuple."""
    return tuple(_tuples(one) for one in data) if isinstance(data, list) else data
