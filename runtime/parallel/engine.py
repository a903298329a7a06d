"""Runs the forward schedule of one layer on this rank."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from moec.artifact.parallel import Parallel
from moec.placement.lookup import Lookup
from moec.runtime.parallel.call import Call, Chunk, Memory
from moec.runtime.parallel.exchanges import Exchanging
from moec.runtime.parallel.figures import Figures
from moec.runtime.parallel.forward import Computing
from moec.runtime.parallel.network import Network
from moec.runtime.parallel.pieces import Pieces
from moec.runtime.parallel.seat import Seat
from moec.runtime.parallel.streams import Program, Run
from moec.schedule.steps import COMPUTE, Schedules, Step

FEW_TOKENS = 32
"""Up to which nothing that an exchange could hide takes as long as waking another thread."""


class Engine:
    """A layer's forward on one rank.  Made by all ranks in the same order, as it makes process groups.

    inputs  names of the layer's inputs, in order
    """

    def __init__(
        self, parallel: Parallel, schedules: Schedules, pieces: Pieces, inputs: Sequence[str], network: Network
    ) -> None:
        self.seat = Seat(parallel, schedules.wiring, schedules.forward, network.rank)
        self.pieces = pieces
        self.figures = Figures.of(self.seat, pieces, inputs)
        self.network = network
        computing, exchanging = Computing(self.figures), Exchanging(self.figures, network)

        def act(step: Step) -> Callable[[Call], None]:
            return (computing if step.stream == COMPUTE else exchanging).act(step)

        self.program: Program[Call] = Program(schedules.forward, act, network.waiting.check)
        self._threads = network.threads(self.program.streams)

    def call(
        self, inputs: Mapping[str, torch.Tensor], lookup: Lookup, memory: Memory, pieces: Pieces | None = None
    ) -> Call:
        """What a call begins with.

        inputs  `(T, *row)` by name, contiguous
        memory  where its tensors lie; results are the caller's
        pieces  instead of the layer's own
        """
        tokens = len(next(iter(inputs.values())))
        begin, end = self.seat.share(tokens)
        results = {
            tensor.name: torch.empty((tokens, *tensor.row), dtype=tensor.dtype, device="cpu")
            for tensor in self.pieces.collect.outputs
        }
        outputs, own = results, inputs
        if self.seat.shares > 1:
            own = {name: value[begin:end] for name, value in inputs.items()}
            outputs = {
                tensor.name: memory.take(("y", tensor.name), (end - begin, *tensor.row), tensor.dtype)
                for tensor in self.pieces.collect.outputs
            }
        return Call(
            pieces=self.pieces if pieces is None else pieces,
            memory=memory,
            lookup=lookup,
            inputs=own,
            given=inputs,
            outputs=outputs,
            results=results,
            tokens=end - begin,
            chunks=[Chunk() for _ in range(self.seat.schedule.chunks)],
        )

    def run(self, call: Call) -> Run:
        """All steps.  Raises RankError where other ranks do not do theirs."""
        if self.seat.schedule.chunks == 1 and call.tokens <= FEW_TOKENS:
            return self.program.run_here(call)
        return self.program.run(call, self._threads)
