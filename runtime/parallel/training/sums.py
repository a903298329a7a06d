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

    Where a hidden dimension is cut, ranks that have the same part of a parameter add up its gradients; of a parameter
    that all of them have whole, all add up, as each has computed a part of the sum.

    experts  for each slot of this rank: which expert lies there, -1 for none
    holders  for each expert the positions that have a copy
    cut      names of the parameters that ranks have parts of
    factor   1 for the gradient of the sum of the ranks' losses; 1 / ranks for that of their mean
    """

    seat: Seat
    experts: Sequence[int]
    holders: Sequence[Sequence[int]]
    cut: frozenset[str] = frozenset()
    factor: float = 1.0

    @classmethod
    def of(cls, seat: Seat, table: Table, cut: frozenset[str], factor: float) -> Sums:
        """For the parameters of experts as `table` has them."""
        return cls(seat, table.held[seat.rules.position].tolist(), table.placement.holders, cut, factor)

    def run(self, parameters: Gradients, group: Group) -> None:
        """In place.  `group` is that of all ranks."""
        for name, found in parameters.items():
            parts = {one: gradient for one, gradient in found.items() if one in self.cut}
            whole = {one: gradient for one, gradient in found.items() if one not in self.cut}
            if name == "experts":
                self._copies(parts, self.alike(self.seat.wiring.tp), group)
                self._copies(whole, self.alike(()), group)
            else:
                everywhere(parts, group, self.alike(self.seat.wiring.shared_tp))
                everywhere(whole, group, self.alike(()))
            if self.factor != 1.0:
                for gradient in found.values():
                    gradient *= self.factor

    def alike(self, axes: tuple[str, ...]) -> list[int]:
        """The ranks at this rank's position along `axes`, ascending."""
        mesh = self.seat.mesh
        part = mesh.position(self.seat.rank, axes)
        return [rank for rank in range(mesh.ranks) if mesh.position(rank, axes) == part]

    def _copies(self, found: dict[str, torch.Tensor], alike: Sequence[int], group: Group) -> None:
        """Each expert's gradient is the sum over those of the ranks `alike` that have a copy of it."""
        parallel: Parallel = self.seat.parallel
        if not any(len(positions) > 1 for positions in self.holders) and len(alike) == parallel.positions:
            return
        holders = [
            tuple(rank for rank in alike if expert >= 0 and parallel.position(rank) in self.holders[expert])
            for expert in self.experts
        ]
        shared = [slot for slot, ranks in enumerate(holders) if len(ranks) > 1]
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


def everywhere(found: Mapping[str, torch.Tensor], group: Group, alike: Sequence[int]) -> None:
    """Each of these becomes its sum over the ranks `alike`, in place: a rank adds up a range and gives it to all.

    alike  positions in the group, ascending, this rank's among them; all ranks of the group take part, and their lists
           are equal or have nothing in common
    """
    if len(alike) == 1 or not found:
        return
    flat = torch.cat([gradient.reshape(-1).float() for gradient in found.values()])
    bounds = [len(flat) * i // len(alike) for i in range(len(alike) + 1)]
    sizes, own = [0] * group.size, [0] * group.size
    mine = alike.index(group.position)
    for i, rank in enumerate(alike):
        sizes[rank], own[rank] = bounds[i + 1] - bounds[i], bounds[mine + 1] - bounds[mine]
    parts = torch.empty((sum(own), 1), dtype=torch.float32, device="cpu")
    group.all_to_all(parts, flat[:, None], own, sizes, "gradients of parameters")
    total = added(list(parts.view(len(alike), own[group.position])))
    group.all_to_all(flat[:, None], total.repeat(len(alike))[:, None], sizes, own, "gradients of parameters")
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
