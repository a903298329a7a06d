"""From the tables in force to others: weights travel, ranks agree, and at one step all of them change."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist

from moec.errors import MoecError, PlacementError, RankError
from moec.placement.table import Arrival, Table
from moec.runtime.parallel.moving.carrier import Carrier
from moec.runtime.parallel.moving.circle import Circle
from moec.runtime.parallel.moving.gate import Active, Gate, Swap
from moec.runtime.parallel.moving.layers import Forms, Movable, active
from moec.runtime.parallel.moving.memory import Pieces, nbytes

_AHEAD = 4
"""Steps ahead at which a fence stands: as many as ranks may make while they confer, without waiting."""


@dataclass(frozen=True)
class Outcome:
    """How the ranks agreed.

    step            the step at which tables change; None: the old ones stay in force, on all ranks
    why             of a failure
    experts         how many copies travelled, on all ranks
    nbytes          of these
    sent, received  bytes, of this rank
    staged          bytes that wait on this rank for that step
    seconds         that all of it took
    """

    step: int | None
    why: str
    experts: int
    nbytes: int
    sent: int
    received: int
    staged: int
    seconds: float


class Mover:
    """One rank's part.  Every rank of the group calls `change` with the same tables, from a thread of its own.

    circle  all ranks that hold experts now or later
    """

    def __init__(self, layers: Sequence[Movable], gate: Gate, circle: Circle, carrier: Carrier) -> None:
        self._layers, self._gate, self._circle, self._carrier = tuple(layers), gate, circle, carrier
        self._rank = dist.get_rank()
        self.forms = Forms.exchanged(layers, circle.group)

    def change(self, tables: Sequence[Table]) -> Outcome:
        """Bring everything where these tables have it, and let them take force at a step soon, on all ranks or none.

        What was agreed on before must be in force (`Gate.settled`).  Raises RuntimeError where a rank is gone, and
        RankError where it is gone at the moment of agreement.
        """
        begin = time.monotonic()
        sent, received = self._carrier.sent, self._carrier.received
        old = self._gate.active
        arrivals: list[tuple[int, Arrival]] = []
        staged: list[tuple[Pieces, Pieces]] = []
        step = None
        to, why = self._prepared(old, tables)
        if not why and to is not None:
            for number, (before, after) in enumerate(zip(old.tables, tables, strict=True)):
                arrivals += [(number, arrival) for arrival in after.arrivals(before)]
            for number, arrival in arrivals:
                try:
                    staged += self._carry(number, arrival)
                except MoecError as error:
                    why = why or str(error)
            why = self._agreed(why)
            if not why:
                step = self._swap(to, staged)
        return Outcome(
            step,
            why,
            len(arrivals),
            sum(self.forms.expert[number] for number, _ in arrivals),
            self._carrier.sent - sent,
            self._carrier.received - received,
            sum(nbytes(given) for given, _ in staged),
            time.monotonic() - begin,
        )

    def _prepared(self, old: Active, tables: Sequence[Table]) -> tuple[Active | None, str]:
        """What will be in force, or why it cannot be: on all ranks the one or the other."""
        why, to = "", None
        try:
            to = active(old.version + 1, tables, self._layers, self._rank)
            for number, (before, after) in enumerate(zip(old.tables, tables, strict=True)):
                peers = self._layers[number].peers
                for arrival in after.arrivals(before):
                    self.forms.direct(number, peers[arrival.source], peers[arrival.target])
        except PlacementError as error:
            why = str(error)
        why = self._agreed(why)
        if not why and to is not None and to.serves:
            try:
                for layer, table in zip(self._layers, tables, strict=True):
                    layer.prepare(table)
            except (MoecError, RuntimeError) as error:
                why = str(error)
        return to, self._agreed(why)

    def _agreed(self, why: str) -> str:
        """Why some rank cannot go on; empty where all can."""
        failed = self._largest(dist.get_rank(self._circle.group) + 1 if why else 0)
        if not failed:
            return ""
        return why or f"rank {dist.get_global_rank(self._circle.group, failed - 1)} could not"

    def _carry(self, number: int, arrival: Arrival) -> list[tuple[Pieces, Pieces]]:
        """This rank's part of one arrival; returns what is to be put in place later: from where, to where."""
        layer = self._layers[number]
        source, target = layer.peers[arrival.source], layer.peers[arrival.target]
        direct = self.forms.direct(number, source, target)
        memory = layer.memory
        if source == self._rank:
            try:
                leaving = memory.pieces(arrival.source_slot) if direct else memory.ordinary(arrival.source_slot)
            except MoecError:
                self._carrier.stop(target)
                raise
            self._carrier.send(leaving, target)
        if target != self._rank:
            return []
        place = memory.pieces(arrival.target_slot)
        if direct and not arrival.staged:
            self._carrier.receive(place, source)
            return []
        room = tuple(torch.empty_like(piece) for piece in place) if direct else memory.room()
        self._carrier.receive(room, source)
        given = room if direct else memory.formed(room)
        if arrival.staged:
            return [(given, place)]
        put(given, place)
        return []

    def _swap(self, to: Active, staged: list[tuple[Pieces, Pieces]]) -> int:
        def apply() -> None:
            for given, place in staged:
                put(given, place)
            for layer, table, lookup in zip(self._layers, to.tables, to.lookups, strict=True):
                layer.use(table, lookup)

        step, lost = 0, None
        try:
            step = self._largest(self._gate.fence(_AHEAD))
        except RuntimeError as error:
            lost = str(error)  # the error itself would keep the group open
        if lost is not None:
            # The others may have agreed without this rank hearing of it.
            gone = RankError(f"ranks were lost while experts moved, and may not agree where they are: {lost}", ())
            self._gate.fail(gone)
            raise gone
        self._gate.swap(Swap(step, to, apply))
        return step

    def _largest(self, number: int) -> int:
        found = torch.tensor([number])
        dist.all_reduce(found, dist.ReduceOp.MAX, self._circle.group)
        return int(found)


def put(given: Pieces, place: Pieces) -> None:
    """Write what is given into its place."""
    for piece, at in zip(given, place, strict=True):
        at.copy_(piece)
