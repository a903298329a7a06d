"""What a layer asks of a machine, and what a machine takes for it: given by a mesh, or measured and kept in a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from moec.schedule.mesh import Mesh
from moec.schedule.routing import Array

PAIR_BYTES = 12
"""What travels with a row for each pair: its row, its slot and its weight."""


@dataclass(frozen=True)
class Layer:
    """The figures of a layer, as one rank has it: expert weights as `tp` cuts them.

    experts, slots  routed experts, and how many a token chooses
    x, y            bytes of a row of the input and of the output
    row, result     bytes of a row as dispatch and as combine send it
    sum             bytes of a row of f32 of the output's width
    gradient        bytes of a row of f32 of the input's width
    *_flops         floating-point operations for a pair (expert) or for a token
    *_bytes         bytes of the weights; of one expert
    """

    experts: int
    slots: int
    x: int
    y: int
    row: int
    result: int
    sum: int
    gradient: int
    expert_flops: float
    expert_bytes: float
    route_flops: float
    route_bytes: float
    shared_flops: float = 0.0
    shared_bytes: float = 0.0


@dataclass(frozen=True)
class Cost:
    """Seconds of a step: `fixed`, and `row` for each row (a pair, or a token), but `weights` at least for those read.

    weights  seconds to read the weights of one expert, or of the whole piece
    """

    fixed: float
    row: float
    weights: float


@dataclass(frozen=True)
class Link:
    """bandwidth: bytes/s each way through one position's link; latency: seconds of an exchange over it."""

    bandwidth: float
    latency: float


@dataclass(frozen=True)
class Machine:
    """Seconds that steps take on one rank while all ranks do the same.

    What exchanges take away is by a rank's clock, and so more where several ranks share a processor.

    route, experts, shared, collect  of the pieces
    copy       to pack or relay one byte
    step       to pack or relay at all
    message    for each rank that takes part in an exchange, beside the links
    processor  of compute that one byte of an exchange takes away, where the processor itself moves it
    handling   of compute that one message of an exchange takes away, sent or received, however short
    links      by axis
    measured   were they measured, or guessed from the mesh?
    """

    route: Cost
    experts: Cost
    shared: Cost
    collect: Cost
    copy: float
    step: float
    message: float
    processor: float
    handling: float
    links: Mapping[str, Link]
    measured: bool = False

    def to_json(self) -> str:
        """The text of a machine file."""
        return json.dumps({"moec_machine": 1, **asdict(self)}, indent=1) + "\n"

    @classmethod
    def read(cls, path: Path) -> Machine:
        """Read a machine file.  Raises ValueError for what is none, OSError."""
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError):
            raise ValueError("it is not JSON") from None
        names = {field.name for field in fields(cls)}
        if not isinstance(data, dict) or data.pop("moec_machine", None) != 1 or set(data) != names:
            raise ValueError("it is no machine file of form 1")
        plain = _numbers({name: data[name] for name in ("copy", "step", "message", "processor", "handling")})
        return cls(
            route=Cost(**_numbers(data["route"], Cost)),
            experts=Cost(**_numbers(data["experts"], Cost)),
            shared=Cost(**_numbers(data["shared"], Cost)),
            collect=Cost(**_numbers(data["collect"], Cost)),
            copy=plain["copy"],
            step=plain["step"],
            message=plain["message"],
            processor=plain["processor"],
            handling=plain["handling"],
            links={axis: Link(**_numbers(link, Link)) for axis, link in data["links"].items()},
            measured=data["measured"] is True,
        )


def _numbers(data: object, of: type | None = None) -> dict[str, float]:
    if not isinstance(data, dict) or (of is not None and set(data) != {field.name for field in fields(of)}):
        raise ValueError("a machine file has a record of another form")
    for name, value in data.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e300:
            raise ValueError(f"a machine file has no such {name}: {value!r}")
    return {name: float(value) for name, value in data.items()}


@dataclass(frozen=True)
class Assumed:
    """What is taken for what a mesh does not say.

    flops      operations/s; of one core of a server
    memory     bytes/s that one device reads at least
    intensity  operations a device does while it reads a byte, at most: about that of accelerators
    bandwidth  bytes/s of a link
    latency    seconds of an exchange
    step       seconds that any piece takes at least
    message    seconds for each rank that takes part in an exchange
    """

    flops: float = 1e11
    memory: float = 2e10
    intensity: float = 300.0
    bandwidth: float = 1e10
    latency: float = 2e-5
    step: float = 2e-5
    message: float = 2e-6


def guess(layer: Layer, mesh: Mesh, assumed: Assumed = Assumed()) -> Machine:
    """A machine that reaches what the mesh says."""
    flops = mesh.flops or assumed.flops
    memory = max(assumed.memory, flops / assumed.intensity)

    def cost(operations: float, weights: float) -> Cost:
        return Cost(assumed.step, operations / flops, weights / memory)

    return Machine(
        route=cost(layer.route_flops, layer.route_bytes),
        experts=cost(layer.expert_flops, layer.expert_bytes),
        shared=cost(layer.shared_flops, layer.shared_bytes),
        collect=Cost(assumed.step, (layer.slots * layer.sum + layer.y) / memory, 0.0),
        copy=2.0 / memory,
        step=assumed.step,
        message=assumed.message,
        processor=0.0,
        handling=0.0,
        links={
            axis.name: Link(
                axis.bandwidth or assumed.bandwidth, assumed.latency if axis.latency is None else axis.latency
            )
            for axis in mesh.axes
        },
    )


def fit(seconds: Sequence[float], rows: Sequence[int], parts: int) -> Cost:
    """The cost that runs with so many rows tell, where each of `parts` experts has an equal part of the rows.

    With few rows the weights of every expert are read and little else is done; with many the rows tell.  The least rows
    say what weights take; the line through the others, of the least squared errors beside what they took, says what a
    row takes and what is fixed.
    """
    order = np.argsort(rows)
    count = np.asarray(rows, np.float64)[order]
    took = np.asarray(seconds, np.float64)[order]
    if len(count) < 2 or count[0] <= 0 or count[0] == count[-1]:
        raise ValueError("it takes runs with at least two numbers of rows above 0")
    each, fixed = _line(count[1:], took[1:]) if len(count) > 2 else (took[-1] / count[-1], 0.0)
    return Cost(fixed, each, float(max(took[0] - fixed, 0.0)) / parts)


def _line(count: Array, took: Array) -> tuple[float, float]:
    """Slope and height, neither below 0."""
    weighed = np.stack([count / took, 1 / took], -1)
    slope, height = np.linalg.lstsq(weighed, np.ones_like(took), rcond=None)[0]
    if slope < 0:
        return 0.0, float(1 / np.mean(1 / took))
    if height < 0:
        return float(weighed[:, 0].sum() / (weighed[:, 0] ** 2).sum()), 0.0
    return float(slope), float(height)


def measure(run: Callable[[int], float], rows: Sequence[int], parts: int, times: int = 5) -> Cost:
    """The cost of a piece: `run(rows)` runs it once and gives its seconds.  The fastest of `times` runs counts."""
    return fit([min(run(count) for _ in range(times)) for count in rows], rows, parts)
