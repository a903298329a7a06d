"""One run of a kernel, with scratch memory and, where they are asked for, statistics."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter_ns
from typing import TYPE_CHECKING

import torch

from moec.runtime.forks import threads
from moec.runtime.native import Kernel
from moec.runtime.workspace import WORKSPACES

if TYPE_CHECKING:  # loaded only where calls are counted
    from moec.runtime.adapt.published import Probe
    from moec.runtime.adapt.statistics import LoadStatistics

_Tensors = Sequence[torch.Tensor]


def run(
    kernel: Kernel,
    packed: torch.Tensor,
    inputs: _Tensors,
    outputs: _Tensors,
    statistics: LoadStatistics | None,
    variant: int = 0,
    probe: Probe | None = None,
    *,
    timed: bool = True,
) -> None:
    """Compute `outputs`, which exist already, on as many threads as `threads()` says.

    statistics  where it leaves what it counts; None: nobody asks
    variant     the number of the build that runs, for `statistics`
    probe       is told of the call
    timed       whether this run is the whole call; if not, `statistics` hears of no time and counts every one
    """
    tokens = inputs[0].shape[0]
    count = threads()
    workspace = WORKSPACES.take(kernel.workspace_bytes(tokens, count))
    row = None
    if statistics is not None:  # behind what may fail: a row that is taken has to be given back
        try:
            next(statistics.gates[tokens])  # a short call goes uncounted
        except (KeyError, StopIteration):
            row = statistics.take(tokens)
    begin = 0 if row is None and probe is None else perf_counter_ns()
    try:
        kernel.run(count, packed, workspace, *inputs, *outputs, *(kernel.unobserved if row is None else row.tensors))
    except BaseException:
        if statistics is not None and row is not None:
            statistics.cancel(row)
        raise
    finally:
        WORKSPACES.give(workspace)
    if begin:
        taken = perf_counter_ns() - begin
        if statistics is not None and row is not None:
            statistics.give(row, tokens, taken if timed else 0, variant)
        if probe is not None:
            probe.seen(inputs, taken)
