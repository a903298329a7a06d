"""Gradients of parameters that several ranks have: added up in the order of ranks, the same bits on all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from moec.artifact.parallel import Parallel
from moec.placement.table import Table
from moec.runtime.parallel.network import Group
from moec.runtime.parallel.seat import Seat

Gradients = dict[str, dict[str, torch.Tensor]]


@dataclass(frozen=True)
class Sums:
    """Adds up what the ranks of a mesh have computed, each from its own tokens or its own copy of an expert.

    experts  for each slot of this rank: which expert lies there, -1 for none
    holders  for each expert the positions that have a copy
    factor   1 for the gradient of the sum of the ranks' losses; 1 / ranks for that of their mean
    """

    seat: Seat
    experts: Sequence[int]
    holders: Sequence[Sequence[int]]
    factor: float = 1.0

    @classmethod
    def of(cls, seat: Seat, table: Table, factor: float) -> Sums:
        """For the parameters of experts as `table` has them."""
        return cls(seat, table.held[seat.rules.position].tolist(), table.placement.holders, factor)

    def run(self, parameters: Gradients, group: Group) -> None:
        """In place.  `group` is that of all ranks."""
        for name, found in parameters.items():
            if name == "experts":
                self._copies(found, group)
            elif found:
                everywhere(found, group)
            if self.factor != 1.0:
                for gradient in found.values():
                    gradient *= self.factor

    def _copies(self, found: dict[str, torch.Tensor], group: Group) -> None:
        """Each expert's gradient is the sum over the ranks that have a copy of it."""
        holders = self.ranks()
        shared = [slot for slot, ranks in enumerate(holders) if len(ranks) > 1]
        if not any(len(positions) > 1 for positions in self.holders) and self._replicas() == 1:
            return
        for gradient in found.values():
            flat = gradient.view(len(gradient), -1)
            # To and from each other holder, by expert: both sides have the same order.
            order = sorted(shared, key=lambda slot: self.experts[slot])
            with_whom = [[slot for slot in order if rank in holders[slot]] for rank in range(group.size)]
            with_whom[group.position] = []
            sizes = [len(slots) for slots in with_whom]
            given = flat[[slot for slots in with_whom for slot in slots]].contiguous()
            heard = torch.empty_like(given)
            group.all_to_all(heard, given, sizes, sizes, "gradients of copies")
            blocks = heard.split(sizes)
            for slot in order:
                parts = [
                    flat[slot] if rank == group.position else blocks[rank][with_whom[rank].index(slot)]
                    for rank in holders[slot]
                ]
                flat[slot] = added([part.float() for part in parts]).to(flat.dtype)

    def ranks(self) -> list[tuple[int, ...]]:
        """For each slot the ranks that have the same part of the same expert, ascending."""
        mesh, parallel = self.seat.mesh, self.seat.parallel
        tp = self.seat.wiring.tp
        part = mesh.position(self.seat.rank, tp)
        alike = [rank for rank in range(mesh.ranks) if mesh.position(rank, tp) == part]
        return [
            tuple(r for r in alike if expert >= 0 and parallel.position(r) in self.holders[expert])
            for expert in self.experts
        ]

    def _replicas(self) -> int:
        """How many ranks have each position of experts."""
        parallel: Parallel = self.seat.parallel
        return self.seat.mesh.ranks // (parallel.positions * self.seat.tp)


def everywhere(found: Mapping[str, torch.Tensor], group: Group) -> None:
    """Each of these becomes the sum over the group, in place: a rank adds up one part of it, and gives it to all."""
    if group.size == 1:
        return
    flat = torch.cat([gradient.reshape(-1).float() for gradient in found.values()])
    bounds = [len(flat) * i // group.size for i in range(group.size + 1)]
    sizes = [bounds[i + 1] - bounds[i] for i in range(group.size)]
    mine = sizes[group.position]
    parts = torch.empty((group.size * mine, 1), dtype=torch.float32, device="cpu")
    group.all_to_all(parts, flat[:, None], [mine] * group.size, sizes, "gradients of parameters")
    total = added(list(parts.view(group.size, mine)))
    group.gather(flat[:, None], total[:, None].contiguous(), sizes, "gradients of parameters")
    begin = 0
    for gradient in found.values():
        gradient.copy_(flat[begin : begin + gradient.numel()].view(gradient.shape))
        begin += gradient.numel()


def added(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Their sum, from the first one on."""
    total = parts[0].clone()
    for part in parts[1:]:
        total += part
    return total
