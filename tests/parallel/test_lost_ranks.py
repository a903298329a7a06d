"""A rank that dies, stops or fails in the middle of a call: every other one gets an error that names it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from moec.errors import RankError
from moec.runtime.parallel.buffers import Buffers
from moec.runtime.parallel.engine import Engine
from moec.runtime.parallel.network import network
from moec.runtime.parallel.pieces import Piece, Tensor
from moec.schedule.build import Options, both
from tests.parallel.ranks import run
from tests.parallel.reference import choices
from tests.parallel.test_forward import Case

pytestmark = pytest.mark.long

LOST = 2
TIMEOUTS = {"dies": 60.0, "stops": 8.0, "raises": 60.0}
"""Seconds: nothing but a limit tells of a rank that is stopped."""


@dataclass
class Falling:
    """A piece that does something else at its third call."""

    piece: Piece
    how: str
    calls: int = 0

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        return self.piece.inputs

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        return self.piece.outputs

    def __call__(self, inputs: Sequence[torch.Tensor], outputs: Sequence[torch.Tensor]) -> None:
        self.calls += 1
        if self.calls == 3:
            if self.how == "raises":
                raise ValueError("no more experts")
            os.kill(os.getpid(), {"dies": signal.SIGKILL, "stops": signal.SIGSTOP}[self.how])
        self.piece(inputs, outputs)


def on_rank(how: str, where: str, options: Options) -> tuple[str, list[int], float]:
    case = Case(options=options)
    mesh = case.mesh
    net = network(mesh, range(mesh.ranks), TIMEOUTS[how])
    parallel, table = case.parallel()
    pieces = case.small.pieces(table, net.rank)
    if net.rank == LOST:
        pieces = replace(pieces, **{where: Falling(getattr(pieces, where), how)})
    engine = Engine(parallel, both(case.wiring, options, False), pieces, ("x", "choice"), net)
    lookup, buffers = table.lookup(net.rank), Buffers()
    generator = np.random.default_rng(net.rank)
    for _ in range(20):
        x, choice = torch.randn(40, case.small.columns), choices(case.small, 40, "any", generator)
        begin = time.monotonic()
        try:
            with net.call("a layer"):
                engine.run(engine.call({"x": x, "choice": choice}, lookup, buffers))
        except (RankError, ValueError) as error:
            first = [str(error), list(getattr(error, "ranks", ())), time.monotonic() - begin]
            if isinstance(error, RankError):  # and the next call fails at once
                with pytest.raises(RankError), net.call("a layer"):
                    pass
            return tuple(first)
    return "nothing happened", [], 0.0


@pytest.mark.parametrize(
    ("how", "where", "options"),
    [
        ("dies", "experts", Options(chunks=2)),
        ("stops", "collect", Options(hierarchical=True)),
        ("raises", "experts", Options(chunks=2, hierarchical=True)),
    ],
)
def test_every_other_rank_names_it(how: str, where: str, options: Options) -> None:
    gone = () if how == "raises" else (LOST,)
    for rank, found in enumerate(run(on_rank, 4, how, where, options, gone=gone)):
        if rank == LOST:
            assert found is None or found[0] == "no more experts"
        else:
            message, ranks, seconds = found
            assert ranks == [LOST], message
            assert f"rank {LOST}" in message
            assert seconds < TIMEOUTS[how] + 30
