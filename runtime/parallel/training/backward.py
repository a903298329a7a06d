"""The steps of a backward call that compute."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from moec.runtime.parallel.arrival import add_up
from moec.runtime.parallel.departure import in_order
from moec.runtime.parallel.figures import Figures
from moec.runtime.parallel.training.call import Backward
from moec.runtime.parallel.wire import Wire
from moec.schedule.steps import Step


@dataclass(frozen=True)
class BackwardComputing:
    """Makes steps of the stream `compute` into functions of a backward call."""

    figures: Figures
    wire: Wire

    def act(self, step: Step) -> Callable[[Backward], None]:
        """What a step does.  Raises KeyError for one that does not compute."""
        chunk = step.chunk or 0
        acts: dict[str, Callable[[Backward], None]] = {
            "collect": self.begin,
            "pack": lambda back: self.pack(back, chunk),
            "experts": lambda back: self.experts(back, chunk),
            "shared": self.shared,
            "route": self.route,
        }
        return acts[step.kind]

    def begin(self, back: Backward) -> None:
        """The gradient of the result is that of every row and term that is added up to it."""
        back.encoded = self.wire.encode(back.dy)

    def pack(self, back: Backward, chunk: int) -> None:
        """Rows of it, in the order in which forward sent the tokens' rows."""
        rules, messages = self.figures.seat.rules, back.call.departure.messages
        first = chunk * rules.width
        begin, end = messages.row_starts[[first, first + rules.grid[0]]].tolist()
        back.chunks[chunk].rows = back.encoded.index_select(0, torch.from_numpy(messages.sent[begin:end]))

    def experts(self, back: Backward, chunk: int) -> None:
        """From the gradients of results to those of rows, weights and parameters."""
        call, state = back.call, back.chunks[chunk]
        arrival, order = call.chunks[chunk].arrival, call.orders.get(chunk)
        done, piece = call.done.pop(("experts", chunk)), call.trained.experts
        # Pairs find the gradient of their result where they found their row.
        seed = torch.zeros((len(done.inputs[0]), self.figures.width), dtype=self.wire.dtype, device="cpu")
        seed[torch.from_numpy(arrival.rows_at(self.figures.dispatch.row_bytes))] = self.wire.decode(state.memory)
        found = piece.backward(done.inputs, call.parameters["experts"], done.saved, {piece.outputs[0].name: seed})
        pairs = len(arrival.row)
        state.out, state.weights = found["rows"][:pairs], found["weight"][:pairs]
        if order is not None:
            back_in_order = torch.from_numpy(np.argsort(order))
            state.out, state.weights = (one.index_select(0, back_in_order) for one in (state.out, state.weights))
        if self.figures.seat.rules.unit != "pair":
            state.out = add_up(state.out, arrival.data, int(arrival.rows.sum()))
        self._keep(back, chunk, {name: found[name] for name in piece.parameters if name in found})

    def _keep(self, back: Backward, chunk: int, found: Mapping[str, torch.Tensor]) -> None:
        """A chunk is a range of slots: the gradients of its parameters are whole, and those of others are zeros."""
        kept = back.parameters.setdefault("experts", {})
        for name, gradient in found.items():
            if name not in kept:
                kept[name] = gradient
            else:
                begin, end = self.figures.seat.schedule.range(chunk, len(gradient))
                kept[name][begin:end] = gradient[begin:end]

    def shared(self, back: Backward) -> None:
        """From the gradients of terms to those of tokens."""
        cut = self.figures.seat.wiring.shared_tp
        seed = back.everyone if cut else back.dy
        found = _gradients(back, "shared", dict.fromkeys(back.call.terms, seed))
        # Parts are added up in f32, whatever the dtype of tokens.
        back.shared = {name: gradient.float() for name, gradient in found.items()} if cut else found

    def route(self, back: Backward) -> None:
        """The gradients of tokens: shared experts', then the router's, then the sum over experts in ascending order."""
        call, figures = back.call, self.figures
        total = torch.zeros((call.tokens, back.rows.shape[1]), dtype=torch.float32, device="cpu")
        places = torch.from_numpy(call.departure.places)
        for slot in range(figures.slots):
            some = torch.nonzero(places[:, slot] >= 0)[:, 0]
            total.index_add_(0, some, back.rows.index_select(0, places[some, slot]))
        found = _gradients(back, "route", {**back.seeds, call.trained.route.outputs[1].name: self._weights(back)})
        for part in (back.shared, found):
            for name, gradient in part.items():
                wide = gradient.float() if name == figures.x else gradient
                back.tokens[name] = back.tokens[name] + wide if name in back.tokens else wide
        dense = back.tokens.get(figures.x)
        back.tokens[figures.x] = (total if dense is None else dense + total).to(call.inputs[figures.x].dtype)

    def _weights(self, back: Backward) -> torch.Tensor:
        """f32 [T, K]: the gradients of the routing weights; zeros where nothing was chosen."""
        call = back.call
        index = call.index.numpy()
        at = in_order(index, call.lookup(index)[0], self.figures.seat.rules)[call.departure.messages.order]
        weights = torch.zeros(index.size, dtype=torch.float32, device="cpu")
        weights[torch.from_numpy(at)] = back.weights[:, 0]
        return weights.view(index.shape)


def _gradients(back: Backward, name: str, seeds: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The gradients of a piece's inputs; those of its parameters are kept."""
    call = back.call
    piece, done = call.trained.trained[name], call.done.pop((name, 0))
    found = dict(piece.backward(done.inputs, call.parameters[name], done.saved, seeds))
    back.parameters[name] = {one: found.pop(one) for one in piece.parameters if one in found}
    return found
