"""Shared experts whose hidden dimension is cut over ranks: tokens are gathered, and partial sums go back to theirs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import torch

from moec.runtime.parallel.call import Call
from moec.runtime.parallel.network import Group, matrix
from moec.runtime.parallel.seat import Seat

_SUMS = "shared experts' sums"


@dataclass(frozen=True)
class SharedCut:
    """Which tokens the ranks that share an expert compute, and whose they are.

    They compute those of all of them.  Tokens of ranks that were given the same ones are at hand; others are gathered.
    """

    seat: Seat

    @cached_property
    def _near(self) -> tuple[tuple[int, int], ...]:
        """For each rank that was given the same tokens and shares the experts: (position, of how many) of its share."""
        mesh, wiring = self.seat.mesh, self.seat.wiring
        axes = [axis for axis in wiring.shared_tp if axis in wiring.same]
        return tuple((mesh.position(rank, wiring.same), self.seat.shares) for rank in mesh.group(self.seat.rank, axes))

    def _block(self, given: torch.Tensor) -> torch.Tensor:
        """The tokens that are at hand, of all of these shares."""
        tokens = len(given)
        shares = [given[tokens * at // of : tokens * (at + 1) // of] for at, of in self._near]
        return shares[0] if len(shares) == 1 else torch.cat(shares)

    def _sizes(self, tokens: int) -> list[int]:
        """How many tokens each of these shares has where there are so many."""
        return [tokens * (at + 1) // of - tokens * at // of for at, of in self._near]

    def near(self, call: Call, names: Sequence[str]) -> None:
        """Take what is at hand: nothing has to be gathered."""
        call.everyone = {name: self._block(call.given[name]) for name in names}
        call.near_tokens = [len(next(iter(call.given.values())))]

    def gather(self, call: Call, group: Group, names: Sequence[str]) -> None:
        """All-gather the inputs of these names."""
        tokens = len(next(iter(call.given.values())))
        sizes = torch.empty((group.size, 1), dtype=torch.int64)
        group.gather(sizes, torch.tensor([[tokens]]), [1] * group.size, "the sizes of shared experts' tokens")
        call.near_tokens = sizes[:, 0].tolist()
        rows = [sum(self._sizes(each)) for each in call.near_tokens]
        call.everyone = {}
        for name in names:
            block = self._block(call.given[name])
            out = call.memory.take(("everyone", name), (sum(rows), *block.shape[1:]), block.dtype)
            group.gather(matrix(out), matrix(block), rows, "shared experts' tokens")
            call.everyone[name] = out

    def reduce(self, call: Call, group: Group, partial: dict[str, torch.Tensor]) -> None:
        """Partial sums go to the ranks whose tokens they are of, and are added up there in the order of ranks.

        partial  rows of all tokens that were gathered, by name; in place: sums of the tokens of the rank's share
        """
        pieces, mine = self._pieces(call), call.tokens
        for name, rows in partial.items():
            sent = torch.cat([rows[begin:end] for begin, end in pieces])
            parts = call.memory.take(("shared parts", name), (group.size * mine, *rows.shape[1:]), rows.dtype)
            group.all_to_all(
                matrix(parts), matrix(sent), [mine] * group.size, [end - begin for begin, end in pieces], _SUMS
            )
            total = parts[:mine]
            for position in range(1, group.size):
                total += parts[position * mine : (position + 1) * mine]
            partial[name] = total

    def spread(self, call: Call, group: Group, own: torch.Tensor) -> torch.Tensor:
        """The reverse of `reduce`: rows of the tokens of all these ranks' shares, in the order of what was gathered."""
        pieces = self._pieces(call)
        out = torch.empty((sum(end - begin for begin, end in pieces), *own.shape[1:]), dtype=own.dtype, device="cpu")
        group.gather(matrix(out), matrix(own), [end - begin for begin, end in pieces], "gradients of shared experts")
        blocks = out.split([end - begin for begin, end in pieces])
        return torch.cat([blocks[i] for i in sorted(range(len(pieces)), key=pieces.__getitem__)])

    def _pieces(self, call: Call) -> list[tuple[int, int]]:
        """Begin and end of the share of each rank that shares the experts in what was gathered."""
        sizes = [self._sizes(each) for each in call.near_tokens]
        begins = list(accumulate((sum(each) for each in sizes), initial=0))
        found = []
        for far, near in self._order:
            begin = begins[far] + sum(sizes[far][:near])
            found.append((begin, begin + sizes[far][near]))
        return found

    @cached_property
    def _order(self) -> tuple[tuple[int, int], ...]:
        """Of each rank that shares the experts: its block in what was gathered, and its share in that."""
        mesh, wiring = self.seat.mesh, self.seat.wiring
        near = [axis for axis in wiring.shared_tp if axis in wiring.same]
        members = mesh.group(self.seat.rank, wiring.shared_tp)
        return tuple((mesh.position(m, wiring.shared_gather), mesh.position(m, near)) for m in members)


def shared_inputs(call: Call) -> list[str]:
    """Names of what shared experts read."""
    return [tensor.name for tensor in call.pieces.shared.inputs] if call.pieces.shared is not None else []
