"""What a rank receives: pairs for its own experts, or (between two hops) pairs that it passes on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from moec.runtime.parallel.departure import Ints, Unit
from moec.runtime.parallel.messages import (
    PAIR_BYTES,
    Counts,
    Messages,
    Numbers,
    Pairs,
    heights,
    lead,
    metadata,
    sort,
    starts,
    write,
)  # fmt: skip


@dataclass(frozen=True)
class Arrival:
    """Messages that have come, read.

    row     i32 [P] of each pair, the row of the received memory
    place   i32 [P] what to compute
    weight  f32 [P]
    data    [P] of each pair, the number of its row among those that are rows
    pairs, rows  [M] how many each message brought
    """

    row: Ints
    place: Ints
    weight: NDArray[np.float32]
    data: Numbers
    pairs: Counts
    rows: Counts

    def rows_at(self, row_bytes: int) -> Numbers:
        """`[rows of all messages]`: which row of the received memory, whose rows have `row_bytes`, each of them is."""
        return np.arange(int(self.rows.sum())) + np.repeat(np.cumsum(lead(self.pairs, row_bytes)), self.rows)

    def units(self, unit: Unit) -> Counts:
        """`[M]`: how many rows go back to where each message came from, from the rank that computes them."""
        return self.pairs if unit == "pair" else self.rows


def arrive(memory: torch.Tensor, pairs: Counts, rows: Counts) -> Arrival:
    """Read the messages in `memory` `[heights of all, columns]`, which have `pairs` and `rows` `[M]`."""
    row_bytes = memory.shape[1] * memory.element_size()
    raw = memory.view(torch.uint8).numpy().reshape(-1)
    leads = lead(pairs, row_bytes)
    begins = starts(leads + rows)[:-1]
    described = np.empty((int(pairs.sum()), 3), np.int32)
    written = described.view(np.uint8).reshape(-1)
    begin = 0
    for size, at in zip((pairs * PAIR_BYTES).tolist(), (begins * row_bytes).tolist(), strict=True):
        written[begin : begin + size] = raw[at : at + size]
        begin += size
    within = described[:, 0]
    row = within + np.repeat(begins + leads, pairs).astype(np.int32)
    data = within.astype(np.intp) + np.repeat(starts(rows)[:-1], pairs)
    weight = np.ascontiguousarray(described[:, 2]).view(np.float32)
    return Arrival(row, described[:, 1], weight, data, pairs, rows)


def add_up(rows: torch.Tensor, unit: Numbers, units: int, out: torch.Tensor | None = None) -> torch.Tensor:
    """`[units, N]`, in `out` if given: the sums of the rows `[P, N]` of each unit, from the first one on."""
    found = torch.empty((units, rows.shape[1]), dtype=rows.dtype, device="cpu") if out is None else out
    return found.zero_().index_add_(0, torch.from_numpy(unit), rows)


@dataclass(frozen=True)
class Relay:
    """Pairs that this rank passes on, from messages of an outer hop to those of an inner one.

    messages  those of the inner hop; their rows are rows of the received memory
    """

    arrival: Arrival
    messages: Messages
    described: Ints

    @classmethod
    def of(cls, arrival: Arrival, destinations: int, behind: int, deduplicate: bool) -> Relay:
        """Sort what came by destination.

        behind  how many places one of them has
        """
        target, place = np.divmod(arrival.place, np.int32(behind))
        row = arrival.row.astype(np.intp)
        messages = sort(target.astype(np.intp), row, destinations, deduplicate)
        return cls(arrival, messages, metadata(Pairs(row, place, arrival.weight), messages))

    def height(self, row_bytes: int) -> Counts:
        """Rows of each message of the inner hop."""
        return heights(self.messages.pairs, self.messages.rows, row_bytes)

    def write(self, memory: torch.Tensor, out: torch.Tensor) -> None:
        """The messages of the inner hop from the `memory` of the outer one."""
        write(out, memory, self.messages, self.described, 0, len(self.messages.pairs))

    def received(self, unit: Unit) -> Counts:
        """How many rows each destination of the inner hop gives back, where `unit` is the outer hop's."""
        return self.messages.pairs if unit == "pair" else self.messages.rows

    def returned(self, unit: Unit) -> Counts:
        """How many rows go back to where each message of the outer hop came from."""
        if unit == "pair":
            return self.arrival.pairs
        if unit == "row":
            return self.arrival.rows
        origin = np.searchsorted(self._ends, self.sources, side="right")
        return np.bincount(origin, minlength=len(self.arrival.pairs))

    def back(self, rows: torch.Tensor, unit: Unit, out: torch.Tensor | None = None) -> torch.Tensor:
        """What goes back by the outer hop, in `out` if given, from the `rows` that the inner one gave back."""
        if unit == "row":
            return add_up(rows, self.sources, int(self.arrival.rows.sum()), out)
        if unit == "pair":
            order = np.empty_like(self.messages.order)
            order[self.messages.order] = np.arange(len(order))
        else:
            order = np.argsort(self.sources, kind="stable")
        return torch.index_select(rows, 0, torch.from_numpy(order), out=out)

    @property
    def _ends(self) -> Counts:
        return starts(self.arrival.rows)[1:]

    @property
    def sources(self) -> Numbers:
        """For each row of the inner hop's messages, its number among the rows that came."""
        number_of = np.empty(int(self.arrival.row.max(initial=-1)) + 1, np.intp)
        number_of[self.arrival.row] = self.arrival.data
        return number_of[self.messages.sent]
