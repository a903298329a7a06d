"""Verifiers of schedules: the form of each step, and a proof that all of them end and find what they need."""

from typing import Any

from torch_mlir import ir

from moec.dialect.checks import require, sound
from moec.dialect.schedule_forms import read_schedule, read_wiring
from moec.schedule.steps import COLLECTIVES, KINDS, WAYS
from moec.schedule.verify import check


@sound
def run(op: Any) -> None:
    _step(op)
    require(_text(op.kind) not in COLLECTIVES, f"a step of kind {_text(op.kind)} is a moe.exchange")


@sound
def exchange(op: Any) -> None:
    _step(op)
    require(_text(op.kind) in COLLECTIVES, f"a step of kind {_text(op.kind)} is a moe.run")
    require(all(isinstance(axis, ir.StringAttr) for axis in ir.ArrayAttr(op.axes)), "axes must be names")


def _step(op: Any) -> None:
    parent = op.operation.parent
    require(parent is not None and parent.operation.name == "moe.schedule", "must stand in a moe.schedule")
    require(_text(op.kind) in KINDS, f"there is no kind {_text(op.kind)}")
    require(_text(op.way) in ("", *WAYS), f"there is no way {_text(op.way)}")
    require(ir.IntegerAttr(op.chunk).value >= -1, "chunk must be a number from 0, or -1")


@sound
def schedule(op: Any) -> None:
    require(len(op.body.blocks) == 1, "the body must have one block")
    names = {each.operation.name for each in op.body.blocks[0].operations}
    require(names <= {"moe.run", "moe.exchange"}, "the body must consist of moe.run and moe.exchange")
    for fault in check(read_schedule(op.operation), read_wiring(op.operation))[:1]:
        require(False, f"is not sound: {fault}")


def _text(attribute: ir.Attribute) -> str:
    return str(ir.StringAttr(attribute).value)
