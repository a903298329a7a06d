"""Runs one layer's step of training on this rank: forward, and backward behind torch's autograd."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from moec.artifact.parallel import Parallel
from moec.errors import MoecError
from moec.placement.lookup import Lookup
from moec.placement.table import Table
from moec.runtime.parallel.call import Call, Chunk
from moec.runtime.parallel.exchanges import Exchanging
from moec.runtime.parallel.figures import Figures
from moec.runtime.parallel.network import Network
from moec.runtime.parallel.seat import Seat
from moec.runtime.parallel.streams import Program, Run
from moec.runtime.parallel.training.backward import BackwardComputing
from moec.runtime.parallel.training.call import Backward, Fresh, TrainingCall, Travelling
from moec.runtime.parallel.training.exchanges import BackwardExchanging
from moec.runtime.parallel.training.forward import TrainedComputing
from moec.runtime.parallel.training.pieces import TrainedPieces
from moec.runtime.parallel.wire import Wire
from moec.schedule.steps import COMPUTE, Schedules, Step


class TrainingEngine:
    """A layer's steps of training on one rank.  Made by all ranks in the same order, as it makes process groups.

    inputs  names of the layer's inputs, in order
    Raises MoecError for schedules that are not for training: backward goes by the chunks of forward, which must be
    ranges of slots, with all pairs travelling.
    """

    def __init__(
        self,
        parallel: Parallel,
        schedules: Schedules,
        pieces: TrainedPieces,
        inputs: Sequence[str],
        network: Network,
    ) -> None:
        forward, backward = schedules.forward, schedules.backward
        if backward is None or forward.local_first or not (forward.split == "experts" or forward.chunks == 1):
            raise MoecError("the layer's schedule is not for training; compile it with `training=True`")
        if (backward.chunks, backward.hops) != (forward.chunks, forward.hops):
            raise MoecError("the schedules of forward and backward are not of the same chunks and hops")
        self.seat = Seat(parallel, schedules.wiring, forward, network.rank)
        self.pieces = pieces
        self.figures = Figures.of(self.seat, pieces, inputs)
        self.network = network
        self._columns = pieces.experts.inputs[0].row[0]
        self._result = pieces.collect.outputs[0]
        dispatch = Wire(self.figures.width, self._result.dtype, parallel.sends.dispatch)
        combine = Wire(self._columns, torch.float32, parallel.sends.combine)
        computing, exchanging = TrainedComputing(self.figures), Exchanging(self.figures, network)
        computing_back = BackwardComputing(self.figures, dispatch)
        exchanging_back = BackwardExchanging(self.figures, network, dispatch, combine)

        def act(step: Step) -> Callable[[Call], None]:
            return (computing if step.stream == COMPUTE else exchanging).act(step)

        def act_back(step: Step) -> Callable[[Backward], None]:
            return (computing_back if step.stream == COMPUTE else exchanging_back).act(step)

        self.forward_program: Program[Call] = Program(forward, act, network.waiting.check)
        self.backward_program: Program[Backward] = Program(backward, act_back, network.waiting.check)
        streams = dict.fromkeys((*self.forward_program.streams, *self.backward_program.streams))
        self._threads = network.threads(list(streams))

    def forward(
        self,
        inputs: Mapping[str, torch.Tensor],
        parameters: Mapping[str, Sequence[torch.Tensor]],
        table: Table,
        lookup: Lookup,
    ) -> tuple[TrainingCall, Run]:
        """All steps forward.

        inputs      `(T, *row)` by name, contiguous
        parameters  of each piece, in its order
        table       where experts are, and `lookup` what this rank looks up in it
        """
        tokens = len(next(iter(inputs.values())))
        begin, end = self.seat.share(tokens)
        outputs = self.pieces.collect.outputs
        results = {o.name: torch.empty((tokens, *o.row), dtype=o.dtype, device="cpu") for o in outputs}
        own, made = inputs, results
        if self.seat.shares > 1:
            own = {name: value[begin:end] for name, value in inputs.items()}
            made = {o.name: torch.empty((end - begin, *o.row), dtype=o.dtype, device="cpu") for o in outputs}
        call = TrainingCall(
            pieces=self.pieces,
            memory=Fresh(),
            lookup=lookup,
            inputs=own,
            given=inputs,
            outputs=made,
            results=results,
            tokens=end - begin,
            chunks=[Chunk() for _ in range(self.seat.schedule.chunks)],
            trained=self.pieces,
            parameters=parameters,
            table=table,
        )
        run = self.forward_program.run(call, self._threads)
        _forget(call)
        return call, run

    def backward(
        self, call: TrainingCall, dy: torch.Tensor, seeds: Mapping[str, torch.Tensor], factor: float = 1.0
    ) -> tuple[Backward, Run]:
        """All steps backward.

        dy      the gradient of the result, `[T, N]` of its dtype
        seeds   the gradients of loss tensors by name, of this rank's share of the tokens
        factor  of the gradients of parameters
        """
        begin, end = self.seat.share(len(dy))
        back = Backward(call, seeds, dy[begin:end].contiguous(), [Travelling() for _ in call.chunks], factor=factor)
        back.rows = torch.zeros((int(call.departure.units.sum()), self._columns), dtype=torch.float32, device="cpu")
        back.weights = torch.zeros((len(call.departure.pairs), 1), dtype=torch.float32, device="cpu")
        run = self.backward_program.run(back, self._threads)
        return back, run


def _forget(call: TrainingCall) -> None:
    """Let go of what backward does not need: rows that have been sent, results that have been added up."""
    del call.returned
    for chunk in call.chunks:
        for name in ("rows", "out"):
            if name in chunk.__dict__:
                delattr(chunk, name)
