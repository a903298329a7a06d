"""Routes of one layer over ranks, in turns: a call begins at a barrier and ends when the last rank has its result."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from json import loads
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import moec
from bench.parallel.blocking import Blocking
from bench.parallel.figures import together
from bench.parallel.loading import loaded
from bench.parallel.rank import below, quiet, rested
from bench.parallel.sizes import Size
from moec.runtime.parallel.layer import ParallelLayer

Call = Callable[[torch.Tensor], torch.Tensor]
BATCHES = 2


def on_a_rank(
    size: Mapping[str, int],
    local: str,
    layers: Mapping[str, str],
    mesh: Mapping[str, int],
    rounds: int,
    alone: bool,
    lock: str | None,
) -> dict[str, Any]:
    """The calls of every route: when each began and ended here, seconds of the processor; how far results differ from
    those of one process that has all experts, 0 where their bits are the same. `probes` are seconds of the experts of a
    call, on all ranks at once, before and behind all calls: a machine that is as fast as it was gives the same.

    local   the artifact of a rank's experts, for the routes `blocking` and `without`: the same without an exchange
    layers  artifacts over the mesh, by the names of their routes
    """
    wanted = Size(**size)
    rank, ranks = dist.get_rank(), dist.get_world_size()
    share = wanted.count // ranks
    experts = moec.load(Path(local))
    experts.load_state_dict(wanted.experts(range(rank * share, (rank + 1) * share)))
    blocking = Blocking(wanted, experts)
    scheduled = {name: loaded(wanted, path, mesh) for name, path in layers.items()}
    routes: dict[str, Call] = {"blocking": blocking, "without": without(blocking)}
    routes |= {name: _below(layer, alone) for name, layer in scheduled.items()}
    batches = [wanted.x(rank, batch) for batch in range(BATCHES)]
    expected = _of_one_process(wanted, next(iter(layers.values())), batches[0])
    errors = {name: _difference(call(batches[0]), expected) for name, call in routes.items() if name != "without"}
    routes["without"](batches[0])
    calls: dict[str, list[dict[str, Any]]] = {name: [] for name in routes}
    rows = batches[0].repeat(wanted.k, 1)
    numbers = torch.arange(len(rows), dtype=torch.int32) % share

    def probe() -> None:
        experts(rows, numbers)

    with torch.no_grad(), quiet(alone, lock):
        before = together(probe)
        for number in range(rounds):
            for name, call in routes.items():
                calls[name].append(timed(call, batches[number % BATCHES]))
        rested()
        after = together(probe)
    timelines = {name: layer.timeline for name, layer in scheduled.items()}
    return {
        "calls": calls,
        "probes": [before, after],
        "errors": errors,
        "timelines": {name: loads(one.to_json()) for name, one in timelines.items() if one is not None},
    }


def without(blocking: Blocking) -> Call:
    """The same with nothing sent."""

    def call(x: torch.Tensor) -> torch.Tensor:
        blocking.exchanging = False
        try:
            return blocking(x)
        finally:
            blocking.exchanging = True

    return call


def _below(layer: ParallelLayer, alone: bool) -> Call:
    run: Call = layer

    def call(x: torch.Tensor) -> torch.Tensor:
        with below(alone):
            return run(x)

    return call


def _of_one_process(size: Size, artifact: str, x: torch.Tensor) -> torch.Tensor:
    """What the artifact gives without a mesh."""
    layer = moec.load(artifact)
    layer.load_state_dict({"router.logits.weight": size.router(), **size.experts(range(size.count))})
    y: torch.Tensor = layer(x)
    return y.detach()


def _difference(y: torch.Tensor, expected: torch.Tensor) -> float:
    """Frobenius norm of the difference over that of what is expected; 0 for the same bits only."""
    if torch.equal(y.detach().view(torch.int32), expected.view(torch.int32)):
        return 0.0
    return float((y - expected).norm() / expected.norm())


def timed(call: Call, x: torch.Tensor) -> dict[str, Any]:
    """When a call began and ended on this rank, and the seconds of processors that it took here."""
    rested()
    begun, busy = time.perf_counter(), time.process_time()
    call(x)
    return {"begin": begun, "end": time.perf_counter(), "processor": time.process_time() - busy}


def seconds(ranks: Sequence[Mapping[str, Any]], route: str) -> list[float]:
    """Of each call of a route: from when its first rank began to when its last ended. Ranks have one clock."""
    calls = zip(*(rank["calls"][route] for rank in ranks), strict=True)
    return [max(one["end"] for one in call) - min(one["begin"] for one in call) for call in calls]


def summary(ranks: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Median, smallest and largest seconds of each route's calls; median seconds of all ranks' processors."""
    found = {}
    for route in ranks[0]["calls"]:
        taken = seconds(ranks, route)
        busy = [sum(one["processor"] for one in call) for call in zip(*(r["calls"][route] for r in ranks), strict=True)]
        middle = statistics.median(taken)
        found[route] = {
            "median": middle,
            "least": min(taken),
            "most": max(taken),
            "processor": statistics.median(busy),
        }
    return found
