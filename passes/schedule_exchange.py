"""Chooses when pieces and exchanges of a layer on a mesh run, and writes it down."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from torch_mlir import ir

from moec.artifact.parallel import MOST_CHUNKS, Parallel
from moec.artifact.schedules import wiring
from moec.dialect.functions import layer_function
from moec.dialect.schedule_forms import write_schedules
from moec.passes.base import Pass, Remarks
from moec.passes.parallel import parallel
from moec.passes.refusal import refuse
from moec.passes.rewriting import body, operations
from moec.passes.scheduling.figures import allowed, figures, load
from moec.schedule.choose import Choice, Chooser
from moec.schedule.machine import Machine, guess


@dataclass(frozen=True)
class ScheduleExchange(Pass):
    """Adds a `moe.schedule` for each direction to a module that has `moe.parallel`; before `place`, which needs none.

    Without a machine file it is taken for granted that the devices reach what the mesh says.  `tokens` is the number
    of tokens of a batch, over all ranks; 0: the most that the layout's load has.  `chunks` stands instead of the
    layout's number.  `train` also schedules the backward.
    """

    machine: str = ""
    tokens: int = 0
    chunks: int = 0
    train: bool = False
    name: ClassVar[str] = "schedule-exchange"

    def apply(self, module: ir.Module, remarks: Remarks) -> None:
        spread = parallel(module)
        if spread is None or any(op.operation.name == "moe.schedule" for op in module.body.operations):
            return
        function = layer_function(module)
        choice = self.choice(module, spread)
        with function.location:
            write_schedules(module, choice.schedules)
        remarks.add(self, f"{choice.chosen.what}: {choice.chosen.why}", function.location)
        for one in choice.rejected:
            remarks.add(self, f"not {one.what}: {one.why}", function.location)
        for other in choice.inapplicable:
            remarks.add(self, f"no {other.what}: {other.why}", function.location)

    def _measured(self, function: ir.Operation) -> Machine | None:
        """The machine file, where there is one.  Raises DiagnosticError for one that cannot be read."""
        if not self.machine:
            return None
        try:
            return Machine.read(Path(self.machine))
        except ValueError as why:
            raise refuse(function, f"`{self.machine}` is no machine file that can be read: {why}") from why
        except OSError as error:
            said = (error.strerror or "it cannot be opened").lower()
            raise refuse(function, f"`{self.machine}` is no machine file that can be read: {said}") from error

    def choice(self, module: ir.Module, spread: Parallel) -> Choice:
        """The schedules of a layer, and what they were chosen among.  Raises DiagnosticError where there is none."""
        function = layer_function(module)
        if not 0 <= self.chunks <= MOST_CHUNKS:
            raise refuse(function, f"exchanges are cut into 1 to {MOST_CHUNKS} chunks, not {self.chunks:,}")
        try:
            wired = wiring(spread, bool(operations(body(module), "moe.capacity")))
            layer = figures(module, spread)
            machine = self._measured(function) or guess(layer, spread.mesh)
            may = allowed(module, spread, self.chunks or None, self.train)
            return Chooser(wired, spread.mesh, layer, load(module, spread, self.tokens), machine, may).choose()
        except (ValueError, OSError) as why:
            raise refuse(function, f"there is no schedule for this layer: {why}") from why
