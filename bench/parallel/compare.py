"""Routes of one layer over ranks, in turns: a call begins at a barrier and ends when the last rank has its result."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import moec
from bench.parallel.blocking import Blocking
from bench.parallel.rank import quiet
from bench.parallel.sizes import Size

Call = Callable[[torch.Tensor], torch.Tensor]
BATCHES = 2


def on_a_rank(
    size: Mapping[str, int], local: str, rounds: int, alone: bool, lock: str | None
) -> dict[str, list[dict[str, Any]]]:
    """The calls of every route: when each began and ended here, seconds of the processor, seconds of its phases."""
    wanted = Size(**size)
    rank, ranks = dist.get_rank(), dist.get_world_size()
    share = wanted.count // ranks
    experts = moec.load(Path(local))
    experts.load_state_dict(wanted.experts(range(rank * share, (rank + 1) * share)))
    blocking = Blocking(wanted, experts)

    def without(x: torch.Tensor) -> torch.Tensor:
        blocking.exchanging = False
        try:
            return blocking(x)
        finally:
            blocking.exchanging = True

    routes: dict[str, Call] = {"blocking": blocking, "without": without}
    batches = [wanted.x(rank, batch) for batch in range(BATCHES)]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in routes}
    for call in routes.values():
        call(batches[0])
    with quiet(alone, lock):
        for number in range(rounds):
            x = batches[number % BATCHES]
            for name, call in routes.items():
                found[name].append(_timed(call, x) | {"phases": blocking.phases()})
    return found


def _timed(call: Call, x: torch.Tensor) -> dict[str, Any]:
    dist.barrier()
    begun, busy = time.perf_counter(), time.process_time()
    call(x)
    return {"begin": begun, "end": time.perf_counter(), "processor": time.process_time() - busy}


def seconds(ranks: Sequence[Mapping[str, Any]], route: str) -> list[float]:
    """Of each call of a route: from when its first rank began to when its last ended. Ranks have one clock."""
    calls = zip(*(rank[route] for rank in ranks), strict=True)
    return [max(one["end"] for one in call) - min(one["begin"] for one in call) for call in calls]


def summary(ranks: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Median, smallest and largest seconds of each route's calls."""
    found = {}
    for route in ranks[0]:
        taken = seconds(ranks, route)
        found[route] = {"median": statistics.median(taken), "least": min(taken), "most": max(taken)}
    return found
