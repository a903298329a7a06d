"""The steps of a forward call that compute, where gradients follow: they keep what backward needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from moec.runtime.parallel.arrival import add_up
from moec.runtime.parallel.call import Call
from moec.runtime.parallel.figures import named
from moec.runtime.parallel.forward import Computing
from moec.runtime.parallel.messages import Numbers
from moec.runtime.parallel.training.call import Done, TrainingCall
from moec.runtime.parallel.training.pieces import Made, TrainedPiece

_F32, _I32 = torch.float32, torch.int32


@dataclass(frozen=True)
class TrainedComputing(Computing):
    """Steps of the stream `compute` as functions of a TrainingCall."""

    def route(self, call: Call) -> None:
        call = _training(call)
        piece = call.trained.route
        made = self._run(call, "route", piece, named(call.inputs, [tensor.name for tensor in piece.inputs]))
        call.index, call.weight = (made.outputs[tensor.name] for tensor in piece.outputs)
        call.losses.update(made.losses)
        if call.pieces.capacity is None:
            self._depart(call)

    def experts(self, call: Call, chunk: int) -> None:
        call = _training(call)
        state, unit = call.chunks[chunk], self.figures.seat.rules.unit
        arrival, pairs = state.arrival, len(state.arrival.row)
        numbers: list[NDArray[Any]] = [arrival.row, arrival.place, arrival.weight]
        order = source_order(self, call, chunk)
        if order is not None:
            call.orders[chunk] = order
            numbers = [one[order] for one in numbers]
        given = {"rows": state.memory}
        for what, values, dtype in zip(("source", "slot", "weight"), numbers, (_I32, _I32, _F32), strict=True):
            tensor = given[what] = torch.zeros((len(state.memory), 1), dtype=dtype, device="cpu")
            tensor.numpy()[:pairs, 0] = values
        given["slot"][pairs:] = -1
        piece = call.trained.experts
        made = self._run(call, "experts", piece, [given[tensor.name] for tensor in piece.inputs], chunk)
        out = made.outputs[piece.outputs[0].name][:pairs]
        state.out = out if order is None else out.index_select(0, torch.from_numpy(np.argsort(order)))
        if unit != "pair":
            state.out = add_up(state.out, arrival.data, int(arrival.rows.sum()))

    def shared(self, call: Call) -> None:
        call = _training(call)
        piece = call.trained.shared
        assert piece is not None, "a schedule with this step is of a layer with shared experts"
        made = self._run(call, "shared", piece, self._shared_inputs(call))
        call.terms.update(made.outputs)

    def _run(
        self, call: TrainingCall, name: str, piece: TrainedPiece, inputs: Sequence[torch.Tensor], chunk: int = 0
    ) -> Made:
        made = piece.forward(inputs, call.parameters[name])
        call.done[name, chunk] = Done(inputs, made.saved)
        return made


def source_order(computing: Computing, call: Call, chunk: int) -> Numbers | None:
    """The pairs of a chunk in the order of the batch; None: they came in it.

    A parameter's gradient is a sum over the rows of an expert, in the order in which they are computed: with this one
    it has the bits that it has in one process.
    """
    seat = computing.figures.seat
    if seat.tp > 1 or not seat.schedule.hops:
        return None
    mesh, wiring, hops = seat.mesh, seat.wiring, seat.hops
    if len(hops) == 1:
        ranks = list(mesh.group(seat.rank, hops[0]))
        counts = call.sizes[0].pairs[chunk]
    else:
        ranks = [origin for peer in mesh.group(seat.rank, hops[1]) for origin in mesh.group(peer, hops[0])]
        counts = call.origins[:, chunk, :, 0].reshape(-1)
    place = [mesh.position(rank, wiring.tokens) * seat.shares + mesh.position(rank, wiring.same) for rank in ranks]
    if place == sorted(place):
        return None
    return np.argsort(np.repeat(np.asarray(place), counts), kind="stable")


def _training(call: Call) -> TrainingCall:
    assert isinstance(call, TrainingCall), "an engine for training makes its own calls"
    return call
