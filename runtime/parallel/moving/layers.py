"""What moving experts has to know of a layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from moec.errors import PlacementError
from moec.placement.lookup import Lookup
from moec.placement.table import Table
from moec.runtime.parallel.moving.gate import Active
from moec.runtime.parallel.moving.memory import SlotMemory, nbytes
from moec.runtime.parallel.moving.rules import Rules

_FORM = 16


@dataclass(frozen=True)
class Movable:
    """A layer whose experts may move, as this rank sees it.

    name     for messages and the journal
    memory   where the experts of this rank lie
    table    where all experts lie at first
    peers    of each position the rank, as the default group numbers it, that has the same part of the experts there as
             this rank has at its own: one of them is this rank.  There may be more than the table has positions
    chosen   how many slots of this rank's tokens chose each expert since the beginning, int64 [experts]
    seconds  that this rank has spent on its experts since the beginning
    prepare  called before a table takes force, on all ranks that will be at its positions at once; may take long
    use      called when a table takes force, with what this rank looks up in it (None: it is at no position of it)
    rules    what plans have to keep
    """

    name: str
    memory: SlotMemory
    table: Table
    peers: tuple[int, ...]
    chosen: Callable[[], NDArray[np.int64]]
    seconds: Callable[[], float]
    prepare: Callable[[Table], None]
    use: Callable[[Table, Lookup | None], None]
    rules: Rules = field(default_factory=Rules)

    def position(self, rank: int) -> int:
        return self.peers.index(rank)


def active(version: int, tables: Sequence[Table], layers: Sequence[Movable], rank: int) -> Active:
    """Tables with what this rank looks up in them.

    Raises PlacementError where a layer has no room for one.
    """
    lookups = []
    for table, layer in zip(tables, layers, strict=True):
        if table.positions > len(layer.peers) or table.slots > layer.memory.slots:
            raise PlacementError(
                f"{layer.name}: a table of {table.positions} positions with {table.slots} slots does not fit "
                f"{len(layer.peers)} ranks with {layer.memory.slots}"
            )
        if table.experts != layer.table.experts:
            raise PlacementError(f"{layer.name} has {layer.table.experts} experts, and the table {table.experts}")
        position = layer.position(rank)
        lookups.append(table.lookup(position) if position < table.positions else None)
    if None in lookups and any(lookups):
        raise PlacementError(f"rank {rank} would take part in some layers only")
    return Active(version, tuple(tables), tuple(lookups))


@dataclass(frozen=True)
class Forms:
    """The forms of all ranks' memories.

    form, plain  by layer and by rank of the default group
    expert       bytes of an expert of each layer on this rank
    """

    form: tuple[dict[int, str], ...]
    plain: tuple[dict[int, str], ...]
    expert: tuple[int, ...]

    @classmethod
    def exchanged(cls, layers: Sequence[Movable], group: dist.ProcessGroup) -> Forms:
        """Every rank of the group calls this, with as many layers."""
        mine = "".join(layer.memory.form + layer.memory.plain for layer in layers)
        told = torch.frombuffer(bytearray(mine.encode()), dtype=torch.uint8)
        found = [torch.empty_like(told) for _ in range(dist.get_world_size(group))]
        dist.all_gather(found, told, group)
        ranks = dist.get_process_group_ranks(group)
        texts = {rank: bytes(text.tolist()).decode() for rank, text in zip(ranks, found, strict=True)}
        starts = range(0, len(mine), 2 * _FORM)
        return cls(
            tuple({rank: text[at : at + _FORM] for rank, text in texts.items()} for at in starts),
            tuple({rank: text[at + _FORM : at + 2 * _FORM] for rank, text in texts.items()} for at in starts),
            tuple(nbytes(layer.memory.pieces(0)) for layer in layers),
        )

    def direct(self, layer: int, source: int, target: int) -> bool:
        """Whether bytes can travel as they lie; else ordinary weights must.

        Raises PlacementError where the two ranks do not understand each other.
        """
        if self.form[layer][source] == self.form[layer][target]:
            return True
        if self.plain[layer][source] != self.plain[layer][target]:
            raise PlacementError(f"ranks {source} and {target} hold other weights: no expert can move between them")
        return False
