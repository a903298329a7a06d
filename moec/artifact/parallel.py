"""How a layout spreads a layer over a mesh of devices, as checked frozen data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from moec.artifact.fields import Fields, InvalidManifest
from moec.artifact.policy import COMPARE
from moec.artifact.traffic import MOST_EXPERTS
from moec.schedule.mesh import LARGEST_AXIS, MOST_AXES, MOST_RANKS, Axis, Mesh

DIRECTIONS = ("dispatch", "combine")
"""The two exchanges of a layer: tokens' rows to the experts, and the experts' rows back."""

SEND_BYTES: Mapping[str, int] = {"bf16": 2, "fp8_e4m3": 1, "int8": 1}
"""What rows may be rounded to on the wire, and its bytes an element; those of one byte have an f32 scale a row."""

MEASURES: Mapping[str, str] = {
    "memory": "bytes of a device's weights and buffers",
    "time": "seconds that a call takes, as predicted for the load's largest batch",
    "exchange": "share of that time in which nothing but an exchange goes on",
}
"""What requirements speak of."""

MOST_CHUNKS = 256
MOST_COPIES = 4096
_MOST_STATEMENTS = 64
_MAX_BYTES = 2**53
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Sharding:
    """Over which axes a group of experts is cut; over the others it is the same everywhere.  Axes outermost first.

    ep      whole experts lie at the positions of these axes; never for shared experts
    tp      the hidden dimension of every expert is cut over these
    counts  how many experts each position of `ep` has, where that was said
    """

    experts: str
    ep: tuple[str, ...] = ()
    tp: tuple[str, ...] = ()
    counts: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Overlap:
    """Which exchanges go on beside compute.

    directions   of DIRECTIONS
    with_shared  shared experts are computed meanwhile
    chunks       in how many parts an exchange is cut; None: the compiler chooses
    """

    directions: tuple[str, ...]
    with_shared: bool = False
    chunks: int | None = None


@dataclass(frozen=True)
class Sends:
    """To what rows are rounded on the wire, of SEND_BYTES; None: to nothing."""

    dispatch: str | None = None
    combine: str | None = None


@dataclass(frozen=True)
class Replicate:
    """Experts that lie at `copies` positions: those with these numbers, or the `hottest` most chosen ones."""

    copies: int
    experts: tuple[int, ...]
    hottest: int | None = None


@dataclass(frozen=True)
class Pin:
    """Experts that lie, with all their copies, at position `index` of an axis of `ep`, now and after any move."""

    experts: tuple[int, ...]
    axis: str
    index: int


@dataclass(frozen=True)
class Require:
    """`measure compare value`, what `moec plan` has to predict.  Bytes, seconds, and a share of 1."""

    measure: str
    compare: str
    value: float


@dataclass(frozen=True)
class Parallel:
    """A layer over a mesh.  A *position* is one of `routed.ep`: `mesh.position(rank, routed.ep)`.

    tokens     axes over which tokens are cut; ranks that differ along others only hold the same tokens
    routed     the experts that a token chooses among
    shared     each group of shared experts, in the file's order
    slots      how many experts a rank has room for
    holders    for each routed expert the positions that have a copy at first, ascending
    partial    an axis of `routed.ep`: `combine` sends one row for each token and position of the axes up to it, which
               is a sum over the experts there (other results).  None: one for each token and expert
    replicate, pins, requires  as the file says
    """

    layout: str
    mesh: Mesh
    tokens: tuple[str, ...]
    routed: Sharding
    slots: int
    holders: tuple[tuple[int, ...], ...]
    shared: tuple[Sharding, ...] = ()
    overlap: Overlap | None = None
    sends: Sends = Sends()
    partial: str | None = None
    replicate: tuple[Replicate, ...] = ()
    pins: tuple[Pin, ...] = ()
    requires: tuple[Require, ...] = ()

    @property
    def positions(self) -> int:
        """How many places for routed experts there are."""
        return self.mesh.size(self.routed.ep)

    def position(self, rank: int) -> int:
        """At which of them a rank is."""
        return self.mesh.position(rank, self.routed.ep)

    def held(self, position: int) -> tuple[int, ...]:
        """The experts that lie there at first, ascending."""
        return tuple(expert for expert, positions in enumerate(self.holders) if position in positions)

    @property
    def exact(self) -> bool:
        """Are the results those of one process, bit for bit?"""
        cut = any(sharding.tp for sharding in (self.routed, *self.shared))
        return not cut and self.partial is None and self.sends == Sends()


def parallel_data(parallel: Parallel) -> dict[str, Any]:
    """As JSON data, of which `read_parallel` makes an equal record."""
    data: dict[str, Any] = _with_lists(asdict(parallel))
    return data


def _with_lists(data: Any) -> Any:
    """The same with every tuple a list, as JSON has it."""
    if isinstance(data, dict):
        return {name: _with_lists(value) for name, value in data.items()}
    return [_with_lists(one) for one in data] if isinstance(data, tuple) else data


def read_parallel(fields: Fields) -> Parallel:
    """Parse and check.  Raises InvalidManifest."""
    parallel = Parallel(
        layout=fields.string("layout", _NAME),
        mesh=_mesh(fields.record("mesh")),
        tokens=fields.strings("tokens", MOST_AXES),
        routed=_sharding(fields.record("routed")),
        slots=fields.integer("slots", 1, MOST_EXPERTS),
        holders=fields.ascending_lists("holders", MOST_EXPERTS, MOST_RANKS, MOST_COPIES),
        shared=tuple(_sharding(one) for one in fields.records("shared", 0, _MOST_STATEMENTS)),
        overlap=_overlap(fields.record("overlap")) if fields.given("overlap") else None,
        sends=_sends(fields.record("sends")),
        partial=fields.string("partial") if fields.given("partial") else None,
        replicate=tuple(_replicate(one) for one in fields.records("replicate", 0, _MOST_STATEMENTS)),
        pins=tuple(_pin(one) for one in fields.records("pins", 0, _MOST_STATEMENTS)),
        requires=tuple(_require(one) for one in fields.records("requires", 0, _MOST_STATEMENTS)),
    )
    fields.finish()
    _check(parallel, fields.path)
    return parallel


def _mesh(fields: Fields) -> Mesh:
    mesh = Mesh(
        fields.string("name", _NAME),
        tuple(_axis(one) for one in fields.records("axes", 1, MOST_AXES)),
        fields.integer("memory", 1, _MAX_BYTES) if fields.given("memory") else None,
        _positive(fields, "flops"),
    )
    fields.finish()
    if len(set(mesh.names)) < len(mesh.axes):
        raise InvalidManifest(f"{fields.path}.axes: two have one name")
    if mesh.ranks > MOST_RANKS:
        raise InvalidManifest(f"{fields.path}.axes: there may be {MOST_RANKS} devices")
    return mesh


def _axis(fields: Fields) -> Axis:
    axis = Axis(
        fields.string("name", _NAME),
        fields.integer("size", 1, LARGEST_AXIS),
        _positive(fields, "bandwidth"),
        fields.number_in("latency", 0.0, 3600.0) if fields.given("latency") else None,
    )
    fields.finish()
    return axis


def _positive(fields: Fields, name: str) -> float | None:
    return fields.number_in(name, 1e-300, 1e300) if fields.given(name) else None


def _sharding(fields: Fields) -> Sharding:
    sharding = Sharding(
        fields.string("experts", _NAME),
        fields.strings("ep", MOST_AXES),
        fields.strings("tp", MOST_AXES),
        fields.integers("counts", 0, MOST_EXPERTS, MOST_RANKS) if fields.given("counts") else None,
    )
    fields.finish()
    return sharding


def _overlap(fields: Fields) -> Overlap:
    overlap = Overlap(
        fields.strings("directions", len(DIRECTIONS)),
        fields.boolean("with_shared"),
        fields.integer("chunks", 1, MOST_CHUNKS) if fields.given("chunks") else None,
    )
    fields.finish()
    if not overlap.directions or len(set(overlap.directions)) < len(overlap.directions):
        raise InvalidManifest(f"{fields.path}.directions must name each exchange once")
    if not set(overlap.directions) <= set(DIRECTIONS):
        raise InvalidManifest(f"{fields.path}.directions must be of {', '.join(DIRECTIONS)}")
    return overlap


def _sends(fields: Fields) -> Sends:
    sends = Sends(**{n: fields.choice(n, SEND_BYTES) if fields.given(n) else None for n in DIRECTIONS})
    fields.finish()
    return sends


def _replicate(fields: Fields) -> Replicate:
    replicate = Replicate(
        fields.integer("copies", 1, MOST_COPIES),
        fields.ascending("experts", MOST_EXPERTS, MOST_EXPERTS),
        fields.integer("hottest", 1, MOST_EXPERTS) if fields.given("hottest") else None,
    )
    fields.finish()
    return replicate


def _pin(fields: Fields) -> Pin:
    pin = Pin(
        fields.ascending("experts", MOST_EXPERTS, MOST_EXPERTS),
        fields.string("axis"),
        fields.integer("index", 0, LARGEST_AXIS),
    )
    fields.finish()
    return pin


def _require(fields: Fields) -> Require:
    require = Require(fields.choice("measure", MEASURES), fields.choice("compare", COMPARE), fields.number("value"))
    fields.finish()
    return require


def _check(parallel: Parallel, path: str) -> None:
    """What fields say of each other."""
    mesh = parallel.mesh
    cuts = {"tokens": parallel.tokens, "routed.ep": parallel.routed.ep, "routed.tp": parallel.routed.tp}
    cuts |= {f"shared[{i}].tp": one.tp for i, one in enumerate(parallel.shared)}
    for name, axes in cuts.items():
        if any(axis not in mesh.names for axis in axes) or mesh.ordered(axes) != axes:
            raise InvalidManifest(f"{path}.{name} must be axes of the mesh, outermost first")
    if set(parallel.routed.ep) & set(parallel.routed.tp):
        raise InvalidManifest(f"{path}.routed is cut over an axis twice")
    if any(one.ep or one.counts is not None for one in parallel.shared):
        raise InvalidManifest(f"{path}.shared experts lie everywhere; they have no `ep`")
    if parallel.partial is not None and parallel.partial not in parallel.routed.ep:
        raise InvalidManifest(f"{path}.partial must be an axis of routed.ep")
    _check_experts(parallel, path)


def _check_experts(parallel: Parallel, path: str) -> None:
    positions, experts = parallel.positions, len(parallel.holders)
    held = [0] * positions
    for expert, at in enumerate(parallel.holders):
        if at[-1] >= positions:
            raise InvalidManifest(f"{path}.holders[{expert}]: there are {positions} positions")
        for position in at:
            held[position] += 1
    if max(held) > parallel.slots:
        raise InvalidManifest(f"{path}.slots: position {held.index(max(held))} holds {max(held)} experts")
    counts = parallel.routed.counts
    if counts is not None and (len(counts) != positions or sum(counts) != experts):
        raise InvalidManifest(f"{path}.routed.counts must be {positions} numbers whose sum is {experts}")
    named = {f"replicate[{i}]": one.experts for i, one in enumerate(parallel.replicate)}
    named |= {f"pins[{i}]": one.experts for i, one in enumerate(parallel.pins)}
    for name, numbers in named.items():
        if numbers[-1] >= experts:
            raise InvalidManifest(f"{path}.{name}: there are {experts} experts")
    for i, pin in enumerate(parallel.pins):
        if pin.axis not in parallel.routed.ep or pin.index >= parallel.mesh.axis(pin.axis).size:
            raise InvalidManifest(f"{path}.pins[{i}] must be a position of an axis of routed.ep")
