"""What a layer on a mesh is predicted to take, and whether that is what its layout requires."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from moec.artifact.parallel import Parallel, Require
from moec.artifact.policy import COMPARE
from moec.artifact.schedules import wiring
from moec.diagnostics import Diagnostic, Fix, Severity
from moec.errors import DiagnosticError
from moec.passes.parallel import parallel
from moec.passes.rewriting import body, operations
from moec.passes.schedule_exchange import ScheduleExchange
from moec.passes.scheduling.figures import figures, load
from moec.pipeline import describe
from moec.pipeline.driver import Compilation
from moec.schedule.choose import Choice
from moec.schedule.demand import Demand
from moec.schedule.predict import Prediction


@dataclass(frozen=True)
class Verdict:
    """What a layout requires, what is predicted of it, and whether that is enough."""

    require: Require
    predicted: float
    holds: bool


@dataclass(frozen=True)
class Plan:
    """A layer on a mesh.

    tokens    of all ranks' calls together
    machine   the file of measured figures, or None: devices and links reach what the mesh says
    choice    the schedule, and what was rejected
    memory    bytes of the fullest device, by what they are for
    verdicts  of the layout's requirements, in its order; and of the memory of a device, where the mesh says it
    """

    layer: str
    spread: Parallel
    tokens: int
    machine: Path | None
    choice: Choice
    memory: Mapping[str, float]
    verdicts: tuple[Verdict, ...]

    @property
    def forward(self) -> Prediction:
        """What a call without gradients is predicted to take."""
        return self.choice.chosen.forward

    @property
    def holds(self) -> bool:
        """Is everything so that is required?"""
        return all(one.holds for one in self.verdicts)


def plan(
    compilation: Compilation, machine: Path | None = None, tokens: int = 0, chunks: int = 0, training: bool = False
) -> Plan:
    """Choose a schedule and predict it.

    machine  a file of measured figures; None: by what the mesh says
    tokens   of all ranks together; 0: the largest batch of the layout's load
    chunks   instead of the layout's number; 0: the layout's, or the fastest
    training also choose and predict the backward

    Raises DiagnosticError for what is wrong with the file, and E0634 where the layer has no layout on a mesh.
    """
    module = compilation.graph
    spread = parallel(module)
    name = describe.layer_name(module)
    if spread is None:
        raise DiagnosticError([_nowhere(name)])
    chosen_by = ScheduleExchange(str(machine) if machine is not None else "", tokens, chunks, training)
    choice = chosen_by.choice(module, spread)
    expected = load(module, spread, tokens)
    wired = wiring(spread, bool(operations(body(module), "moe.capacity")))
    demand = Demand(choice.schedules.forward, wired, spread.mesh, figures(module, spread), expected)
    memory = demand.memory()
    batch = round(float(expected.tokens) * spread.mesh.size(spread.tokens))
    verdicts = tuple(_verdict(one, choice.chosen.forward, sum(memory.values())) for one in _required(spread))
    return Plan(name, spread, batch, machine, choice, memory, verdicts)


def _required(spread: Parallel) -> tuple[Require, ...]:
    limit = spread.mesh.memory
    return spread.requires + ((Require("memory", "<=", float(limit)),) if limit is not None else ())


def _verdict(require: Require, forward: Prediction, memory: float) -> Verdict:
    predicted = {
        "memory": memory,
        "time": forward.seconds,
        "exchange": forward.alone / forward.seconds if forward.seconds else 0.0,
    }[require.measure]
    return Verdict(require, predicted, COMPARE[require.compare](predicted, require.value))


def _nowhere(layer: str) -> Diagnostic:
    return Diagnostic(
        "E0634",
        Severity.ERROR,
        f"`{layer}` has no layout on a mesh, so there is nothing to plan",
        (),
        (),
        Fix("write a `mesh` and a layout `on` it, or choose such a layout with --layout"),
    )
