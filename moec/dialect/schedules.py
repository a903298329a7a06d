"""Schedules as operations: steps on streams, with the signals between them as SSA values.

    "moe.schedule"() ({
      %0 = "moe.run"() {step = "pack.0", kind = "pack", stream = "compute", chunk = 0, ...} : () -> !moe.signal
      %1 = "moe.exchange"(%0) {step = "dispatch.0", kind = "exchange", way = "dispatch", axes = ["node", "gpu"], ...}
    }) {sym_name = "forward", split = "tokens", chunks = 2, ...} : () -> ()

A step waits for the signals that are its operands.  Steps of one stream run in the order in which they stand.  The
verifier of `moe.schedule` is a proof: see `moec.schedule.verify`.
"""

from collections.abc import Sequence

from torch_mlir import ir
from torch_mlir.dialects.ext import Operand, Region, Result

from moec.dialect import schedule_checks as checks
from moec.dialect.moe import Moe, unsegmented


class Signal(Moe.Type, name="signal"):
    """That a step of this rank has ended."""


@unsegmented("operandSegmentSizes")
class RunOp(Moe.Operation, name="run"):
    """A step that stays on its rank: a piece of the layer, or copying.

    kind, way, hop  which one, as moec.schedule.steps says; way is "" where the kind alone says it
    chunk           of which chunk; -1: of all
    """

    waits: Sequence[Operand[Signal]]
    step: ir.StringAttr
    kind: ir.StringAttr
    way: ir.StringAttr
    stream: ir.StringAttr
    chunk: ir.IntegerAttr
    hop: ir.IntegerAttr
    done: Result[Signal]

    def verify_invariants(self) -> bool:
        return checks.run(self)


@unsegmented("operandSegmentSizes")
class ExchangeOp(Moe.Operation, name="exchange"):
    """A step in which all ranks take part that differ along `axes` only; else as `moe.run`."""

    waits: Sequence[Operand[Signal]]
    step: ir.StringAttr
    kind: ir.StringAttr
    way: ir.StringAttr
    stream: ir.StringAttr
    chunk: ir.IntegerAttr
    hop: ir.IntegerAttr
    axes: ir.ArrayAttr
    done: Result[Signal]

    def verify_invariants(self) -> bool:
        return checks.exchange(self)


class ScheduleOp(Moe.Operation, name="schedule", traits=[ir.NoTerminatorTrait]):
    """What every rank of the mesh runs in one direction: `sym_name` is "forward" or "backward".

    The other attributes are those of moec.schedule.steps.Schedule; `wiring` is the record of that name.
    """

    sym_name: ir.StringAttr
    split: ir.StringAttr
    chunks: ir.IntegerAttr
    hops: ir.ArrayAttr
    deduplicate: ir.IntegerAttr
    local_first: ir.IntegerAttr
    buffers: ir.IntegerAttr
    wiring: ir.DictAttr
    body: Region

    def verify_region_invariants(self) -> bool:
        return checks.schedule(self)
