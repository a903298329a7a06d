"""Which links make the exchange of the layer without a schedule a given part of its time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import moec
from bench.parallel.blocking import Blocking
from bench.parallel.compare import Call, seconds, timed, without
from bench.parallel.launch import run
from bench.parallel.network import Network
from bench.parallel.rank import quiet
from bench.parallel.sizes import Size

ROUNDS = 6
TRIES = 3
CLOSE = 0.01
"""How far the part may be from the one that is asked for."""
SMOOTHING = 0.8
"""Of the logarithm of a correction: what is measured scatters, too."""


def shaped(network: Network, part: float, **arguments: Any) -> list[tuple[float, float]]:
    """Give the links bandwidths with which the exchange takes `part` of a blocking call; their ratio stays.

    The bytes/s of a node's link and the part that were tried, in order. `arguments`: those of `on_a_rank`.
    """
    tried = []
    for _ in range(TRIES):
        found = run(network, on_a_rank, **arguments)
        calls, alone = (sum(sorted(seconds(found, route))[1:-1]) for route in ("blocking", "without"))
        tried.append((network.shape.between, 1 - alone / calls))
        if abs(tried[-1][1] - part) <= CLOSE:
            break
        wanted = alone * part / (1 - part)
        factor = ((calls - alone) / wanted) ** SMOOTHING
        network.reshape(network.shape.between * factor, network.shape.within * factor)
    return tried


def on_a_rank(size: Mapping[str, int], local: str, alone: bool, lock: str | None) -> dict[str, Any]:
    """The calls of the layer without a schedule, and of the same that sends nothing; as bench.parallel.compare's."""
    wanted = Size(**size)
    rank, share = dist.get_rank(), wanted.count // dist.get_world_size()
    experts = moec.load(Path(local))
    experts.load_state_dict(wanted.experts(range(rank * share, (rank + 1) * share)))
    blocking = Blocking(wanted, experts)
    routes: dict[str, Call] = {"blocking": blocking, "without": without(blocking)}
    x = wanted.x(rank)
    calls: dict[str, list[dict[str, Any]]] = {name: [] for name in routes}
    with torch.no_grad():
        for call in routes.values():
            call(x)
        with quiet(alone, lock):
            for _ in range(ROUNDS):
                for name, call in routes.items():
                    calls[name].append(timed(call, x))
    return {"calls": calls}
