"""The steps of a backward call that take other ranks.

Which rows travel where is known from the forward call: nothing but gradients is sent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch

from moec.runtime.parallel.figures import Figures
from moec.runtime.parallel.messages import Counts
from moec.runtime.parallel.network import Group, Network
from moec.runtime.parallel.shared import SharedCut
from moec.runtime.parallel.training.call import Backward
from moec.runtime.parallel.training.sums import Sums
from moec.runtime.parallel.wire import Wire
from moec.schedule.steps import Step

_F32 = torch.float32


@dataclass(frozen=True)
class BackwardExchanging:
    """Makes steps of network streams into functions of a backward call.

    dispatch  how gradients of results travel to experts
    combine   how gradients of rows travel back
    """

    figures: Figures
    network: Network
    dispatch: Wire
    combine: Wire

    def act(self, step: Step) -> Callable[[Backward], None]:
        """What a step does.  Raises KeyError for one that takes no other ranks."""
        chunk, group = step.chunk or 0, self.network.group(step.axes)
        hops = len(self.figures.seat.schedule.hops)
        cut = SharedCut(self.figures.seat)
        acts: dict[tuple[str, str | None], Callable[[Backward], None]] = {
            ("exchange", "dispatch"): lambda back: self.send(back, group, chunk, step.hop),
            ("relay", "dispatch"): lambda back: self.relay(back, chunk),
            ("gather", "dispatch"): lambda back: self.spread(back, group, chunk),
            ("reduce", "combine"): lambda back: self.reduce(back, group, chunk),
            ("exchange", "combine"): lambda back: self.give_back(back, group, chunk, hops - 1 - step.hop),
            ("relay", "combine"): lambda back: self.relay_back(back, chunk),
            ("gather", "shared"): lambda back: self.spread_shared(back, group),
            ("reduce", "shared"): lambda back: cut.reduce(back.call, group, back.shared),
            ("gather", "result"): lambda back: self.tokens(back, group),
            ("gradients", None): lambda back: self.parameters(back, group),
        }
        return acts[step.kind, step.way]

    def send(self, back: Backward, group: Group, chunk: int, hop: int) -> None:
        """The gradients of a chunk's sums."""
        call, state, rules = back.call, back.chunks[chunk], self.figures.seat.rules
        first = chunk * rules.width
        given = call.departure.messages.rows[first : first + rules.grid[0]]
        if hop:
            given = call.chunks[chunk].relay.messages.rows
        rows = call.sizes[hop].rows[chunk]
        state.memory = torch.empty((int(rows.sum()), self.dispatch.width), dtype=self.dispatch.carrier, device="cpu")
        group.exchange(state.memory, state.rows, rows.tolist(), given.tolist(), "dispatch of gradients")

    def relay(self, back: Backward, chunk: int) -> None:
        """Sort what has come from other nodes by the ranks of this one."""
        state, relay = back.chunks[chunk], back.call.chunks[chunk].relay
        state.rows = state.memory.index_select(0, torch.from_numpy(relay.sources))

    def spread(self, back: Backward, group: Group, chunk: int) -> None:
        """All that has come at the ranks that share these experts goes to each of them."""
        seat, state = self.figures.seat, back.chunks[chunk]
        given = state.memory if seat.schedule.hops else state.rows
        rows = back.call.sizes[len(seat.grid)].rows[chunk].reshape(group.size, -1).sum(1)
        state.memory = torch.empty((int(rows.sum()), self.dispatch.width), dtype=self.dispatch.carrier, device="cpu")
        group.gather(state.memory, given, rows.tolist(), "gather of gradients")

    def reduce(self, back: Backward, group: Group, chunk: int) -> None:
        """Partial sums go to the rank whose rows they are of, and are added up there in the order of ranks."""
        state, arrival = back.chunks[chunk], back.call.chunks[chunk].arrival
        units = arrival.units(self.figures.seat.rules.unit)
        state.out = _reduced(group, state.out.float(), units)
        state.weights = _reduced(group, state.weights, arrival.pairs)
        if not self.figures.seat.schedule.hops:
            self._arrive(back, chunk, state.out)

    def give_back(self, back: Backward, group: Group, chunk: int, hop: int) -> None:
        """Gradients of rows and weights go back the way that dispatch's hop `hop` came."""
        call, state, rules, wire = back.call, back.chunks[chunk], self.figures.seat.rules, self.combine
        unit, forward = rules.unit, call.chunks[chunk]
        sizes = call.sizes[hop]
        if hop == len(rules.grid) - 1:
            sent = (sizes.pairs if unit == "pair" else sizes.rows)[chunk]
            state.out = wire.encode(state.out.to(wire.dtype))
        else:
            sent = forward.relay.returned(unit)
        first = chunk * rules.width
        pairs = call.departure.messages.pairs[first : first + rules.grid[0]]
        height = call.departure.units[chunk, : rules.grid[0]]
        if hop:
            pairs, height = forward.relay.messages.pairs, forward.relay.received(unit)
        out = _exchanged(group, state.out, height, sent)
        state.weights = _exchanged(group, state.weights, pairs, sizes.pairs[chunk])
        if hop:
            state.out = out
        else:
            self._arrive(back, chunk, wire.decode(out))

    def relay_back(self, back: Backward, chunk: int) -> None:
        """Put what has come from the ranks of this node into the order in which other nodes asked for it."""
        state, relay, wire = back.chunks[chunk], back.call.chunks[chunk].relay, self.combine
        unit = self.figures.seat.rules.unit
        if unit == "row":
            state.out = wire.encode(relay.back(wire.decode(state.out).float(), unit).to(wire.dtype))
        else:
            state.out = relay.back(state.out, unit)
        state.weights = relay.back(state.weights, "pair")

    def _arrive(self, back: Backward, chunk: int, rows: torch.Tensor) -> None:
        """Everything of a chunk is back."""
        departure, rules = back.call.departure, self.figures.seat.rules
        begin = int(departure.regions[chunk])
        back.rows[begin : begin + len(rows)] = rows
        begin = int(departure.messages.pair_starts[chunk * rules.width])
        weights = back.chunks[chunk].weights
        back.weights[begin : begin + len(weights)] = weights

    def spread_shared(self, back: Backward, group: Group) -> None:
        """The ranks among which shared experts' hidden dimension is cut need the gradients of each other's tokens."""
        back.everyone = SharedCut(self.figures.seat).spread(back.call, group, back.dy)

    def parameters(self, back: Backward, group: Group) -> None:
        """Gradients of parameters that several ranks have become sums over those ranks."""
        cut = back.call.trained.cut
        Sums.of(self.figures.seat, back.call.table, cut, back.factor).run(back.parameters, group)

    def tokens(self, back: Backward, group: Group) -> None:
        """Every rank that was given the same tokens gets the gradients of all of them."""
        total = len(next(iter(back.call.given.values())))
        sizes = [end - begin for begin, end in pairwise(total * i // group.size for i in range(group.size + 1))]
        for name, own in back.tokens.items():
            out = torch.empty((total, *own.shape[1:]), dtype=own.dtype, device="cpu")
            group.gather(_matrix(out), _matrix(own.contiguous()), sizes, "gradients of tokens")
            back.tokens[name] = out


def _exchanged(group: Group, rows: torch.Tensor, height: Counts, sent: Counts) -> torch.Tensor:
    out = torch.empty((int(height.sum()), rows.shape[1]), dtype=rows.dtype, device="cpu")
    group.exchange(out, rows.contiguous(), height.tolist(), sent.tolist(), "combine of gradients")
    return out


def _reduced(group: Group, rows: torch.Tensor, units: Counts) -> torch.Tensor:
    """The sums over the group of the rows that are this rank's, added in the order of ranks."""
    sent = units.reshape(group.size, -1).sum(1)
    mine = int(sent[group.position])
    parts = torch.empty((group.size * mine, rows.shape[1]), dtype=rows.dtype, device="cpu")
    group.all_to_all(parts, rows.contiguous(), [mine] * group.size, sent.tolist(), "sums of gradients")
    total = parts[:mine].clone()
    for position in range(1, group.size):
        total += parts[position * mine : (position + 1) * mine]
    return total


def _matrix(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.view(len(tensor), -1) if len(tensor) else tensor.view(0, 1)
