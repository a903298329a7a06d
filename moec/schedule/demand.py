"""How much each step of a schedule moves and computes on every rank, for a load: what is expected of it.

Arrays are of the mesh's shape, or broadcast to it.  Every rank's tokens choose alike, so that what rank i sends to rank
j is a number of i times a number of j, and sums over a mesh of thousands of ranks need no matrix.  Copies of an expert
are taken to have their shares of every rank's tokens; ranks prefer those near them, so with copies less travels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from moec.schedule.machine import PAIR_BYTES, Cost, Layer, Machine
from moec.schedule.mesh import Mesh
from moec.schedule.routing import Array, Choices
from moec.schedule.steps import Schedule, Step, Wiring


@dataclass(frozen=True)
class Held:
    """Where copies of experts lie: entry i is a copy of expert `expert[i]` in slot `slot[i]` of position `position[i]`.

    share  [copies] which part of that expert's tokens it takes
    slots  how many a position has, with those that are empty
    """

    expert: tuple[int, ...]
    position: tuple[int, ...]
    slot: tuple[int, ...]
    share: tuple[float, ...]
    slots: int

    @classmethod
    def of(cls, holders: Sequence[Sequence[int]], slots: int = 0) -> Held:
        """Slots in the order of experts, at least `slots` of them, tokens shared evenly among copies."""
        copies = sorted((position, expert) for expert, positions in enumerate(holders) for position in positions)
        begins: dict[int, int] = {}
        for number, (position, _) in enumerate(copies):
            begins.setdefault(position, number)
        at = tuple(number - begins[position] for number, (position, _) in enumerate(copies))
        return cls(
            tuple(expert for _, expert in copies),
            tuple(position for position, _ in copies),
            at,
            tuple(1.0 / len(holders[expert]) for _, expert in copies),
            max(slots, max(at) + 1),
        )


@dataclass(frozen=True)
class Load:
    """Tokens that travel.

    tokens   of each rank: of the mesh's shape, or one number for all; where ranks hold the same tokens, of each of them
    choices  how they choose experts
    held     where experts are
    partial  the axis up to which combine adds up before it sends; None: not at all
    """

    tokens: Array | float
    choices: Choices
    held: Held
    partial: str | None = None


@dataclass(frozen=True)
class Flow:
    """What an exchange moves, in bytes, through the links of each axis: from every rank, and to it.

    Entry l of both is for the mesh's axis l: what goes to ranks that differ along it, and along no axis further out.
    """

    out: Array
    into: Array
    ranks: int


@dataclass(frozen=True)
class Demand:
    """What the steps of a schedule need, for one load."""

    schedule: Schedule
    wiring: Wiring
    mesh: Mesh
    layer: Layer
    load: Load

    def flow(self, step: Step) -> Flow:
        """What an exchange moves.  Raises KeyError for a step that exchanges nothing."""
        alike = step.chunk is not None and self.schedule.split == "tokens"  # all chunks of tokens are expected to be
        key = step.kind, step.way, step.hop, 0 if alike else step.chunk
        if key not in self._flows:
            self._flows[key] = self._flow(step)
        return self._flows[key]

    @cached_property
    def _flows(self) -> dict[tuple[str, str | None, int, int | None], Flow]:
        return {}

    def _flow(self, step: Step) -> Flow:
        ranks = self.mesh.size(step.axes)
        match step.kind, step.way:
            case "exchange", "dispatch":
                return self._all_to_all(step, self._arriving(step.hop), self._row_bytes(step, step.hop), ranks)
            case "exchange", _:
                hop = len(self.schedule.hops) - 1 - step.hop
                return self._all_to_all(step, self._result_bytes(step, hop), self._arriving(hop), ranks)
            case "counts", _:
                each = 16.0 * self.schedule.chunks * max(1, self.mesh.size(self.wiring.ep) // ranks)
                return self._all_to_all(step, np.full(self.shape, each), np.ones(self.shape), ranks)
            case "choices", _:
                return self._gathered(step, self.share * self.layer.slots * 8)
            case "gather", "dispatch":
                return self._gathered(step, self._gathered_bytes(step))
            case "reduce", "combine":
                return self._scattered(step, self._reduced_bytes(step))
            case "gather", "shared":
                return self._gathered(step, self.share * (self.layer.sum if self._backward else self.layer.x))
            case "reduce", "shared":
                return self._scattered(step, self.share * (self.layer.gradient if self._backward else self.layer.sum))
            case "gather", "result":
                return self._gathered(step, self.share * (self.layer.x if self._backward else self.layer.y))
            case "gradients", _:
                copied = (self.layer.route_bytes + self.layer.shared_bytes) * 2 / ranks
                return self._all_to_all(step, np.full(self.shape, copied), np.ones(self.shape), ranks)
        raise KeyError(step.name)

    def seconds(self, step: Step, machine: Machine) -> Array:
        """What a step that stays on its rank takes, on every rank."""
        return np.broadcast_to(self._seconds(step, machine), self.shape)

    def _seconds(self, step: Step, machine: Machine) -> Array:
        factor = 2.0 if self._backward else 1.0
        match step.kind:
            case "route" | "capacity":
                return factor * _piece(self.share, machine.route)
            case "shared":
                over = tuple(set(self.wiring.shared_tp))
                return factor * _piece(self._over(self.share, over), machine.shared)
            case "collect":
                part = 1.0 if step.chunk is None else 1.0 / self.schedule.chunks
                return _piece(self.share * part, machine.collect)
            case "pack":
                moved = self._all_rows(step.chunk, 0) * self.share * self._width("dispatch")
                return moved * machine.copy + machine.step
            case "relay":
                return self._relayed(step) * machine.copy + machine.step
            case "experts" | "local":
                return factor * self._experts(step, machine)
        raise KeyError(step.name)

    def memory(self) -> dict[str, float]:
        """Bytes that the fullest rank needs: weights, and buffers that are alive at a time."""
        layer, first = self.layer, self.share.max()
        weights = self.load.held.slots * layer.expert_bytes + layer.route_bytes + layer.shared_bytes
        kept = self.schedule.buffers / self.schedule.chunks
        packed = first * self._all_rows(None, 0) * self._width("dispatch")
        pairs = np.broadcast_to(self._over(self.share, (*self.wiring.ep, *self.wiring.tp)), self.shape) * self._pairs(
            None
        )
        arrived = float(np.max(pairs)) * (self._width("dispatch") + layer.sum)
        rows = first * layer.slots * layer.sum
        return {
            "weights": weights,
            "tokens": float(np.max(self.load.tokens)) * (layer.x + layer.y),
            "buffers": float(kept * (packed + arrived) + rows),
        }

    @property
    def shape(self) -> tuple[int, ...]:
        return self.mesh.shape

    @cached_property
    def share(self) -> Array:
        """Tokens of every rank's share."""
        given = np.broadcast_to(np.asarray(self.load.tokens, np.float64), self.shape)
        return np.ascontiguousarray(given / max(1, self.mesh.size(self.wiring.same)))

    @property
    def _backward(self) -> bool:
        return self.schedule.direction == "backward"

    def _dims(self, axes: Sequence[str]) -> tuple[int, ...]:
        return tuple(i for i, name in enumerate(self.mesh.names) if name in axes)

    def _over(self, array: Array, axes: Sequence[str]) -> Array:
        """Sums over these axes, for every rank."""
        found: Array = np.broadcast_to(array, self.shape).sum(self._dims(axes), keepdims=True)
        return found

    def _spread(self, values: Array) -> Array:
        """Numbers of the positions of experts, as an array of the mesh's axes."""
        sizes = [axis.size if axis.name in self.wiring.ep else 1 for axis in self.mesh.axes]
        return values.reshape(sizes)

    @cached_property
    def _slots(self) -> Array:
        """[positions, slots] how many tokens of each one are expected to choose what lies in a slot."""
        held = self.load.held
        found = np.zeros((max(1, self.mesh.size(self.wiring.ep)), held.slots))
        included = self.load.choices.included
        np.add.at(found, (held.position, held.slot), included[list(held.expert)] * np.asarray(held.share))
        return found

    def _chunk_slots(self, chunk: int | None) -> tuple[int, int]:
        if chunk is None or self.schedule.split == "tokens":
            return 0, self.load.held.slots
        return self.schedule.range(chunk, self.load.held.slots)

    def _part(self, chunk: int | None) -> float:
        return 1.0 / self.schedule.chunks if chunk is not None and self.schedule.split == "tokens" else 1.0

    def _pairs(self, chunk: int | None) -> Array:
        """Of one token, pairs at each position."""
        begin, end = self._chunk_slots(chunk)
        return self._spread(self._slots[:, begin:end].sum(1)) * self._part(chunk)

    def _visits(self, chunk: int | None, axes: tuple[str, ...]) -> Array:
        """Of one token, how often it visits each position of the expert axes up to the last of `axes`."""
        begin, end = self._chunk_slots(chunk)
        inner = self.mesh.size([axis for axis in self.wiring.ep if axis not in axes])
        found = _visited(self.load.choices, self.load.held, begin, end, self.mesh.size(axes), inner)
        sizes = [axis.size if axis.name in axes else 1 for axis in self.mesh.axes]
        return found.reshape(sizes) * self._part(chunk)

    def _all_rows(self, chunk: int | None, hop: int) -> float:
        """Of one token, rows that are packed for a hop."""
        return float(np.sum(self._rows(chunk, hop)))

    def _rows(self, chunk: int | None, hop: int) -> Array:
        """Of one token, rows that end up at each position of the hops up to this one."""
        upto = sum(self.schedule.hops[: hop + 1], ())
        if self.schedule.deduplicate:
            return self._visits(chunk, upto)
        return self._at(self._pairs(chunk), upto)

    def _at(self, values: Array, upto: tuple[str, ...]) -> Array:
        """Numbers of positions, summed over the expert axes beyond these."""
        found: Array = values.sum(self._dims([a for a in self.wiring.ep if a not in upto]), keepdims=True)
        return found

    def _width(self, way: str) -> int:
        if self._backward:
            return self.layer.sum if way == "dispatch" else self.layer.gradient + 4
        return self.layer.row if way == "dispatch" else self.layer.result

    def _row_bytes(self, step: Step, hop: int) -> Array:
        """Bytes that one token of each sender brings to each receiver of a hop."""
        upto = sum(self.schedule.hops[: hop + 1], ())
        pairs = 0.0 if self._backward else PAIR_BYTES * self._at(self._pairs(step.chunk), upto)
        return self._rows(step.chunk, hop) * self._width("dispatch") + pairs

    def _result_bytes(self, step: Step, hop: int) -> Array:
        """Bytes that go back for one token over a hop of dispatch."""
        upto, inner = sum(self.schedule.hops[: hop + 1], ()), hop == len(self.schedule.hops) - 1
        partial = self.load.partial
        if partial is None or self._backward:
            rows = self._at(self._pairs(step.chunk), upto)
        elif partial in upto and not inner:
            rows = self._visits(step.chunk, upto)
        else:
            rows = self._at(self._visits(step.chunk, self.wiring.ep), upto)
        return rows * self._width("combine")

    def _arriving(self, hop: int) -> Array:
        """Tokens whose rows a rank sends on by a hop: its own, and behind a relay those of the ranks before it."""
        return self._over(self.share, sum(self.schedule.hops[:hop], ()))

    def _all_to_all(self, step: Step, senders: Array, receivers: Array, ranks: int) -> Flow:
        """The products of senders' and receivers' numbers are the bytes between them."""
        out, into = np.zeros((len(self.shape), *self.shape)), np.zeros((len(self.shape), *self.shape))
        dims = self._dims(step.axes)
        send, receive = np.broadcast_to(senders, self.shape), np.broadcast_to(receivers, self.shape)
        for number, dim in enumerate(dims):
            beyond, within = dims[number:], dims[number + 1 :]
            out[dim] = send * (receive.sum(beyond, keepdims=True) - receive.sum(within, keepdims=True))
            into[dim] = receive * (send.sum(beyond, keepdims=True) - send.sum(within, keepdims=True))
        return Flow(out, into, ranks)

    def _gathered(self, step: Step, own: Array) -> Flow:
        return self._all_to_all(step, own, np.ones(self.shape), self.mesh.size(step.axes))

    def _scattered(self, step: Step, own: Array) -> Flow:
        return self._all_to_all(step, np.ones(self.shape), own, self.mesh.size(step.axes))

    def _gathered_bytes(self, step: Step) -> Array:
        last = len(self.schedule.hops) - 1
        if last < 0:
            return self.share * (self._width("dispatch") * self._part(step.chunk))
        return self._over(self._arriving(last), self.schedule.hops[last]) * self._row_bytes(step, last)

    def _reduced_bytes(self, step: Step) -> Array:
        last = len(self.schedule.hops) - 1
        if last < 0:
            pairs = self._pairs(step.chunk)
            return self.share * float(pairs.sum()) * self._width("combine")
        return self._over(self._arriving(last), self.schedule.hops[last]) * self._result_bytes(step, last)

    def _relayed(self, step: Step) -> Array:
        if step.way == "dispatch":
            rows = self._row_bytes(step, step.hop)
            return self._arriving(step.hop) * self._over(rows, self.schedule.hops[step.hop])
        hop = len(self.schedule.hops) - 1 - step.hop
        return self._over(self._arriving(hop), self.schedule.hops[hop]) * self._result_bytes(step, hop)

    def _experts(self, step: Step, machine: Machine) -> Array:
        begin, end = self._chunk_slots(step.chunk)
        sources = self._over(self.share, (*self.wiring.ep, *self.wiring.tp))
        if step.kind == "local":
            sources = self.share
        elif self.schedule.local_first:
            sources = sources - self.share
        slots = self._slots[:, begin:end] * self._part(step.chunk)
        sizes = [axis.size if axis.name in self.wiring.ep else 1 for axis in self.mesh.axes]
        rows = np.broadcast_to(sources, self.shape)[..., None] * slots.reshape(*sizes, end - begin)
        cost = machine.experts
        read = (1.0 - np.exp(-rows)) * cost.weights
        found: Array = cost.fixed + np.maximum(rows * cost.row, read).sum(-1)
        return found


@lru_cache(maxsize=256)
def _visited(choices: Choices, held: Held, begin: int, end: int, positions: int, inner: int) -> Array:
    """[positions] how often a token visits each, where it goes to slots from `begin` up to `end` only.

    `inner` neighbouring places where experts are make one position.
    """
    slot = np.asarray(held.slot)
    groups = np.where((slot >= begin) & (slot < end), np.asarray(held.position) // inner, -1)
    return _of_copies(choices, held).visited(groups, positions)


@lru_cache(maxsize=16)
def _of_copies(choices: Choices, held: Held) -> Choices:
    """Choices of copies, as if each were an expert."""
    shares = np.asarray(choices.shares)[list(held.expert)] * np.asarray(held.share)
    return Choices(tuple(shares.tolist()), choices.slots)


def _piece(tokens: Array, cost: Cost) -> Array:
    found: Array = cost.fixed + np.where(tokens > 0, np.maximum(tokens * cost.row, cost.weights), 0.0)
    return found
