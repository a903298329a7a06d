"""The steps of a forward call that compute: pieces, and what gets rows ready for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from moec.runtime.parallel.arrival import add_up
from moec.runtime.parallel.call import Call, Sizes
from moec.runtime.parallel.departure import Ints, depart
from moec.runtime.parallel.figures import Figures, named
from moec.runtime.parallel.messages import Numbers, heights, metadata, write
from moec.runtime.parallel.shared import SharedCut, shared_inputs
from moec.schedule.steps import Step

_F32, _I32 = torch.float32, torch.int32


@dataclass(frozen=True)
class Computing:
    """Makes steps of the stream `compute` into functions of a call."""

    figures: Figures

    def act(self, step: Step) -> Callable[[Call], None]:
        """What a step does.  Raises KeyError for one that does not compute."""
        chunk = step.chunk
        acts: dict[str, Callable[[Call], None]] = {
            "route": self.route,
            "capacity": self.capacity,
            "local": lambda call: self.local(call, chunk),
            "shared": self.shared,
            "pack": lambda call: self.pack(call, chunk or 0),
            "experts": lambda call: self.experts(call, chunk or 0),
            "collect": lambda call: self.collect(call, chunk),
        }
        return acts[step.kind]

    def route(self, call: Call) -> None:
        piece = call.pieces.route
        shape = (call.tokens, self.figures.slots)
        call.index = call.memory.take("index", shape, _I32)
        call.weight = call.memory.take("weight", shape, _F32)
        piece(named(call.inputs, [tensor.name for tensor in piece.inputs]), [call.index, call.weight])
        if call.pieces.capacity is None:
            self._depart(call)

    def capacity(self, call: Call) -> None:
        piece, (both, begin) = call.pieces.capacity, call.choices
        assert piece is not None, "a schedule with this step is of a layer with a capacity"
        slots = self.figures.slots
        index, weight = both[:, :slots].contiguous(), both[:, slots:].contiguous().view(_F32)
        kept = call.memory.take("kept", tuple(index.shape), _I32)
        piece([{"index": index, "weight": weight}[tensor.name] for tensor in piece.inputs], [kept])
        call.index = kept[begin : begin + call.tokens]
        self._depart(call)

    def _depart(self, call: Call) -> None:
        rules = self.figures.seat.rules
        index = call.index.numpy()
        holder, slot = call.lookup(index)
        one = call.departure = depart(index, call.weight.numpy(), holder, slot, rules)
        call.described = metadata(one.pairs, one.messages)
        # What `local` computes is written as long as x is, so a few rows more than come back.
        rows = call.tokens * (self.figures.slots + rules.local_first)
        call.returned = call.memory.take("rows", (rows, self.figures.width), _F32)
        if not self.figures.seat.schedule.hops:  # nothing travels but to the ranks that have the rest of an expert
            shape = (rules.chunks, rules.width)
            call.sizes[0] = Sizes(one.messages.pairs.reshape(shape), one.messages.rows.reshape(shape))

    def pack(self, call: Call, chunk: int) -> None:
        seat, wire = self.figures.seat, self.figures.dispatch
        if chunk == next(step.chunk for step in seat.schedule.steps if step.kind == "pack"):
            x = call.inputs[self.figures.x]
            out = None if wire.plain else call.memory.take("encoded", (len(x), wire.width), wire.carrier)
            call.encoded = wire.encode(x, out)
        messages = call.departure.messages
        first = chunk * seat.rules.width
        last = first + seat.grid[0]
        state = call.chunks[chunk]
        state.heights = heights(messages.pairs[first:last], messages.rows[first:last], wire.row_bytes)
        shape = (int(state.heights.sum()), wire.width)
        state.rows = call.memory.take(("send", chunk % seat.schedule.buffers), shape, wire.carrier)
        write(state.rows, call.encoded, messages, call.described, first, last)

    def experts(self, call: Call, chunk: int) -> None:
        state, unit = call.chunks[chunk], self.figures.seat.rules.unit
        arrival, pairs = state.arrival, len(state.arrival.row)
        ring = chunk % self.figures.seat.schedule.buffers
        out = call.memory.take(("out", ring), (len(state.memory), self.figures.width), _F32)
        numbers = (arrival.row, arrival.place, arrival.weight)
        self._run_experts(call, f"chunk.{ring}", state.memory, numbers, out)
        state.out = out[:pairs]
        if unit != "pair":
            rows = int(arrival.rows.sum())
            sums = call.memory.take(("sums", ring), (rows, self.figures.width), _F32)
            state.out = add_up(state.out, arrival.data, rows, sums)

    def local(self, call: Call, chunk: int | None) -> None:
        """The pairs of a chunk, or of all, that do not travel, each chunk's behind what comes back of it."""
        rules, one, x = self.figures.seat.rules, call.departure, call.inputs[self.figures.x]
        chunks = np.arange(rules.chunks) if chunk is None else np.array([chunk])
        here = chunks * rules.width + rules.grid[0]
        begins, counts = one.messages.pair_starts[here].tolist(), one.messages.pairs[here].tolist()
        chosen = np.concatenate(
            [one.messages.order[begin : begin + count] for begin, count in zip(begins, counts, strict=True)]
        )
        length = max(len(chosen), call.tokens)
        if length > call.tokens:
            longer = call.memory.take("x.local", (length, x.shape[1]), x.dtype)
            longer[: call.tokens] = x
            x = longer
        targets = (one.regions[:-1] + one.units[:, :-1].sum(1))[chunks].tolist()
        directly = rules.chunks == 1
        if directly:
            out = call.returned[targets[0] : targets[0] + length]
        else:
            out = call.memory.take("out.local", (length, self.figures.width), _F32)
        numbers = (one.pairs.row[chosen], one.pairs.place[chosen], one.pairs.weight[chosen])
        self._run_experts(call, "local", x, numbers, out)
        if not directly:
            begin = 0
            for target, count in zip(targets, counts, strict=True):
                call.returned[target : target + count] = out[begin : begin + count]
                begin += count

    def _run_experts(
        self,
        call: Call,
        name: str,
        rows: torch.Tensor,
        numbers: tuple[Numbers | Ints, Numbers | Ints, NDArray[np.float32]],
        out: torch.Tensor,
    ) -> None:
        """The piece on pairs (row, slot, weight); `rows` and `out` are longer where there are fewer pairs."""
        length, pairs = len(rows), len(numbers[0])
        given = {"rows": rows}
        for what, values, dtype in zip(("source", "slot", "weight"), numbers, (_I32, _I32, _F32), strict=True):
            tensor = given[what] = call.memory.take((what, name), (length, 1), dtype)
            array = tensor.numpy()[:, 0]
            array[:pairs] = values
            array[pairs:] = -1 if what == "slot" else 0
        piece = call.pieces.experts
        piece([given[tensor.name] for tensor in piece.inputs], [out])

    def shared(self, call: Call) -> None:
        piece = call.pieces.shared
        assert piece is not None, "a schedule with this step is of a layer with shared experts"
        inputs = self._shared_inputs(call)
        outputs = []
        for tensor in piece.outputs:
            term = call.memory.take(("term", tensor.name), (len(inputs[0]), *tensor.row), tensor.dtype)
            call.terms[tensor.name] = term
            outputs.append(term)
        piece(inputs, outputs)

    def _shared_inputs(self, call: Call) -> list[torch.Tensor]:
        """Of the share, or of all tokens of the ranks among which the hidden dimension is cut."""
        wiring, names = self.figures.seat.wiring, shared_inputs(call)
        if wiring.shared_tp and not wiring.shared_gather:
            SharedCut(self.figures.seat).near(call, names)
        return named(call.everyone if wiring.shared_tp else call.inputs, names)

    def collect(self, call: Call, chunk: int | None) -> None:
        seat, slots, piece = self.figures.seat, self.figures.slots, call.pieces.collect
        begin, end = (0, call.tokens) if chunk is None else seat.schedule.range(chunk, call.tokens)
        rows = call.returned[begin * slots : end * slots].view(end - begin, slots, self.figures.width)
        places = call.departure.places[begin:end]
        if begin:
            places = np.where(places >= 0, places - np.int32(begin * slots), np.int32(-1))
        given = {"rows": rows, "places": torch.from_numpy(places)}
        for values in (call.terms, call.inputs):
            given |= {name: value[begin:end] for name, value in values.items() if name not in given}
        inputs = named(given, [tensor.name for tensor in piece.inputs])
        piece(inputs, [call.outputs[tensor.name][begin:end] for tensor in piece.outputs])
