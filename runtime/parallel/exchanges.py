"""The steps of a forward call that take other ranks: what is sent, and what comes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from moec.runtime.parallel.arrival import Relay, arrive
from moec.runtime.parallel.call import Call, Sizes
from moec.runtime.parallel.figures import Figures
from moec.runtime.parallel.messages import Counts, heights
from moec.runtime.parallel.network import Group, Network, matrix
from moec.runtime.parallel.shared import SharedCut, shared_inputs
from moec.schedule.steps import Step

_F32, _I32 = torch.float32, torch.int32


@dataclass(frozen=True)
class Exchanging:
    """Makes steps of network streams into functions of a call."""

    figures: Figures
    network: Network

    def act(self, step: Step) -> Callable[[Call], None]:
        """What a step does.  Raises KeyError for one that takes no other ranks."""
        chunk, group = step.chunk or 0, self.network.group(step.axes)
        hops = len(self.figures.seat.schedule.hops)
        cut = SharedCut(self.figures.seat)
        acts: dict[tuple[str, str | None], Callable[[Call], None]] = {
            ("choices", None): lambda call: self.choices(call, group),
            ("counts", None): lambda call: self.counts(call, group, step.hop, step.hop == hops),
            ("exchange", "dispatch"): lambda call: self.dispatch(call, group, chunk, step.hop),
            ("relay", "dispatch"): lambda call: self.relay(call, chunk),
            ("gather", "dispatch"): lambda call: self.spread(call, group, chunk),
            ("reduce", "combine"): lambda call: self.reduce(call, group, chunk),
            ("exchange", "combine"): lambda call: self.combine(call, group, chunk, hops - 1 - step.hop),
            ("relay", "combine"): lambda call: self.relay_back(call, chunk),
            ("gather", "shared"): lambda call: cut.gather(call, group, shared_inputs(call)),
            ("reduce", "shared"): lambda call: cut.reduce(call, group, call.terms),
            ("gather", "result"): lambda call: self.results(call, group),
        }
        return acts[step.kind, step.way]

    def choices(self, call: Call, group: Group) -> None:
        """All-gather what tokens chose, in the order of the batch."""
        seat = self.figures.seat
        own = torch.cat([call.index, call.weight.view(_I32)], 1)
        sizes = torch.empty((group.size, 1), dtype=torch.int64)
        group.gather(sizes, torch.tensor([[call.tokens]]), [1] * group.size, "the sizes of choices")
        tokens: list[int] = sizes[:, 0].tolist()
        every = call.memory.take("choices", (sum(tokens), own.shape[1]), _I32)
        group.gather(every, own, tokens, "choices")
        mesh, wiring = seat.mesh, seat.wiring
        order = sorted(
            range(group.size), key=lambda r: (mesh.position(r, wiring.tokens), mesh.position(r, wiring.same))
        )
        begin = sum(tokens[rank] for rank in order[: order.index(seat.rank)])
        if order != sorted(order):
            blocks = every.split(tokens)
            every = torch.cat([blocks[rank] for rank in order])
        call.choices = every, begin

    def counts(self, call: Call, group: Group, hop: int, gather: bool) -> None:
        """Tell others what they get.  The first hop also tells what is to be passed on by the second."""
        seat = self.figures.seat
        chunks, grid = seat.rules.chunks, seat.grid
        if gather:
            last = call.sizes[len(grid) - 1]
            told = np.ascontiguousarray(np.stack([last.pairs, last.rows], 2))  # [chunks, sources, 2]
            heard = np.empty((group.size, *told.shape), np.int64)
            given, out = _matrix(told[None]), _matrix(heard)
            group.gather(out, given, [1] * group.size, "counts")
            pairs, rows = (np.ascontiguousarray(heard[..., i].swapaxes(0, 1)).reshape(chunks, -1) for i in range(2))
            call.sizes[len(grid)] = Sizes(pairs, rows)
            return
        if hop == 0:
            told = _told(call, chunks, grid)
        else:
            told = np.ascontiguousarray(
                call.passed.transpose(2, 1, 0, 3)
            )  # [destinations, chunks, sources of hop 0, 2]
        heard = np.empty(told.shape, np.int64)
        group.all_to_all(_matrix(heard), _matrix(told), [1] * group.size, [1] * group.size, "counts")
        if hop == 0:
            call.sizes[0] = Sizes(heard[:, :, 0, 0].T, heard[:, :, 0, 1].T)
            call.passed = heard[:, :, 1:]
        else:
            call.origins = heard
            both = heard.sum(2)
            call.sizes[1] = Sizes(both[:, :, 0].T, both[:, :, 1].T)

    def dispatch(self, call: Call, group: Group, chunk: int, hop: int) -> None:
        """The messages of a chunk."""
        seat, state, wire = self.figures.seat, call.chunks[chunk], self.figures.dispatch
        sizes = call.sizes[hop]
        pairs, rows = sizes.pairs[chunk], sizes.rows[chunk]
        height = heights(pairs, rows, wire.row_bytes)
        total, final = int(height.sum()), hop == len(seat.grid) - 1
        # As long as the pairs are, too: the piece wants one length for all of its inputs.
        length = max(total, int(pairs.sum())) if final and not seat.wiring.tp and wire.plain else total
        ring = chunk % seat.schedule.buffers
        memory = call.memory.take((f"arrived.{hop}", ring), (length, wire.width), wire.carrier)
        group.exchange(memory[:total], state.rows, height.tolist(), state.heights.tolist(), "dispatch")
        state.memory, state.heights = memory, height
        if final and not seat.wiring.tp:
            self._arrive(call, chunk, sizes, total)

    def _arrive(self, call: Call, chunk: int, sizes: Sizes, total: int) -> None:
        """Read what has come for this rank's experts; rows that were rounded for the wire become ordinary ones."""
        state, wire = call.chunks[chunk], self.figures.dispatch
        state.arrival = arrive(state.memory[:total], sizes.pairs[chunk], sizes.rows[chunk])
        if not wire.plain:
            length = max(total, len(state.arrival.row))
            ring = chunk % self.figures.seat.schedule.buffers
            rows = call.memory.take(("decoded", ring), (length, wire.columns), wire.dtype)
            wire.decode(state.memory[:total], rows[:total])
            state.memory = rows

    def relay(self, call: Call, chunk: int) -> None:
        """Sort what has come from other nodes by the ranks of this one."""
        seat, state, wire = self.figures.seat, call.chunks[chunk], self.figures.dispatch
        sizes = call.sizes[0]
        arrival = arrive(state.memory, sizes.pairs[chunk], sizes.rows[chunk])
        relay = state.relay = Relay.of(arrival, seat.grid[1], seat.rules.slots, seat.rules.deduplicate)
        state.heights = relay.height(wire.row_bytes)
        shape = (int(state.heights.sum()), wire.width)
        state.rows = call.memory.take(("forward", chunk % seat.schedule.buffers), shape, wire.carrier)
        relay.write(state.memory, state.rows)

    def spread(self, call: Call, group: Group, chunk: int) -> None:
        """All that has come at the ranks that share these experts goes to each of them."""
        seat, state, wire = self.figures.seat, call.chunks[chunk], self.figures.dispatch
        given = state.memory if seat.schedule.hops else state.rows
        sizes = call.sizes[len(seat.grid)]
        pairs, rows = sizes.pairs[chunk], sizes.rows[chunk]
        height = heights(pairs, rows, wire.row_bytes).reshape(group.size, -1).sum(1)
        total = int(height.sum())
        length = max(total, int(pairs.sum())) if wire.plain else total
        ring = chunk % seat.schedule.buffers
        memory = call.memory.take(("gathered", ring), (length, wire.width), wire.carrier)
        group.gather(memory[:total], given, height.tolist(), "gather")
        state.memory = memory
        self._arrive(call, chunk, sizes, total)

    def reduce(self, call: Call, group: Group, chunk: int) -> None:
        """Partial sums go to the rank whose rows they are of, and are added up there in the order of ranks."""
        seat, state = self.figures.seat, call.chunks[chunk]
        sent = state.arrival.units(seat.rules.unit).reshape(group.size, -1).sum(1)
        mine = int(sent[group.position])
        parts = call.memory.take(
            ("parts", chunk % seat.schedule.buffers), (group.size * mine, self.figures.width), _F32
        )
        group.all_to_all(parts, state.out, [mine] * group.size, sent.tolist(), "reduce")
        state.out = parts[:mine]
        for position in range(1, group.size):
            state.out += parts[position * mine : (position + 1) * mine]
        if not seat.schedule.hops:
            begin = int(call.departure.regions[chunk])
            call.returned[begin : begin + mine] = state.out

    def combine(self, call: Call, group: Group, chunk: int, hop: int) -> None:
        """Results go back the way that dispatch's hop `hop` came."""
        seat, state, wire = self.figures.seat, call.chunks[chunk], self.figures.combine
        unit, ring = seat.rules.unit, chunk % seat.schedule.buffers
        last = len(seat.grid) - 1
        if hop == last:
            sizes = call.sizes[hop]
            sent = (sizes.pairs if unit == "pair" else sizes.rows)[chunk]
            given = self._encoded(call, chunk, state.out)
        else:
            sent, given = state.relay.returned(unit), state.out
        if hop > 0:
            height = state.relay.received(unit)
            rows = call.memory.take(("back", ring), (int(height.sum()), wire.width), wire.carrier)
            group.exchange(rows, given, height.tolist(), sent.tolist(), "combine")
            state.out = rows
            return
        height = call.departure.units[chunk, : seat.grid[0]]
        begin, total = int(call.departure.regions[chunk]), int(height.sum())
        target = call.returned[begin : begin + total]
        rows = target if wire.plain else call.memory.take(("back.0", ring), (total, wire.width), wire.carrier)
        group.exchange(rows, given, height.tolist(), sent.tolist(), "combine")
        if not wire.plain:
            wire.decode(rows, target)

    def relay_back(self, call: Call, chunk: int) -> None:
        """Put what has come from the ranks of this node into the order in which other nodes asked for it."""
        state, wire = call.chunks[chunk], self.figures.combine
        unit, ring = self.figures.seat.rules.unit, chunk % self.figures.seat.schedule.buffers
        rows = int(state.relay.returned(unit).sum())
        if unit == "row":
            sums = call.memory.take(("sums.1", ring), (rows, wire.columns), _F32)
            state.out = self._encoded(call, chunk, state.relay.back(wire.decode(state.out), unit, sums))
        else:
            out = call.memory.take(("sums.1", ring), (rows, wire.width), wire.carrier)
            state.out = state.relay.back(state.out, unit, out)

    def _encoded(self, call: Call, chunk: int, rows: torch.Tensor) -> torch.Tensor:
        """Results as they travel back."""
        wire, ring = self.figures.combine, chunk % self.figures.seat.schedule.buffers
        if wire.plain:
            return rows
        return wire.encode(rows, call.memory.take(("encoded", ring), (len(rows), wire.width), wire.carrier))

    def results(self, call: Call, group: Group) -> None:
        """Every rank that was given the same tokens gets the results of all of them."""
        total = len(next(iter(call.results.values())))
        bounds = [total * i // group.size for i in range(group.size + 1)]
        sizes = [end - begin for begin, end in pairwise(bounds)]
        for name, out in call.results.items():
            group.gather(matrix(out), matrix(call.outputs[name]), sizes, "results")


def _told(call: Call, chunks: int, grid: tuple[int, ...]) -> Counts:
    """`[destinations of hop 0, chunks, 1 or 1 + positions of hop 1, 2]`: pairs and rows."""
    one = call.departure
    first = np.stack([one.messages.pairs, one.messages.rows], 1).reshape(chunks, one.width, 1, 2)[:, : grid[0]]
    if len(grid) == 1:
        return np.ascontiguousarray(first.swapaxes(0, 1))
    behind = np.stack([one.pair_counts, one.rows], 2).reshape(chunks, grid[0], grid[1], 2)
    return np.ascontiguousarray(np.concatenate([first, behind], 2).swapaxes(0, 1))


def _matrix(array: Counts) -> torch.Tensor:
    """The same memory as `[first, the rest]`."""
    return torch.from_numpy(array).view(len(array), -1)
