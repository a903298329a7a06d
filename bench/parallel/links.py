"""What the links of a mesh give as Gloo sees them: bytes a second and seconds a message along each axis."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.distributed as dist

from bench.parallel.loading import LIMIT
from bench.parallel.rank import quiet
from moec.runtime.parallel.network import Group, network
from moec.schedule.mesh import Axis, Mesh

Exchange = Callable[[torch.Tensor, torch.Tensor, Group], None]
SMALL = 8
SIZES = (2**12, 2**14, 2**16, 2**18, 2**20)
"""Bytes to each other rank of a group."""
ROUNDS = 12


@dataclass(frozen=True)
class Link:
    """Of exchanges over one axis, or all of them, with all of its groups at once.

    axes       over which ranks exchange
    bandwidth  bytes/s each way through the link that a position of the outermost axis shares; of the largest exchange
    latency    seconds of the shortest exchange, that of SMALL bytes as a rule
    seconds    of exchanges, by the bytes from each rank to each other one
    """

    axes: tuple[str, ...]
    bandwidth: float
    latency: float
    seconds: Mapping[int, float]


def exchange(into: torch.Tensor, out: torch.Tensor, group: Group) -> None:
    """One row of `out` to each rank of the group, and one of `into` from each, as layers exchange them."""
    each = [1] * group.size
    group.exchange(into, out, each, each, "probe")


def plainly(into: torch.Tensor, out: torch.Tensor, group: Group) -> None:
    """The same as torch does it, over the default process group."""
    dist.all_to_all_single(into, out)


def connected(mesh: Mesh, axes: tuple[str, ...]) -> Group:
    """The group of this rank along these axes, used once already; every rank makes all of them."""
    group = network(mesh, range(mesh.ranks), LIMIT).group(axes)
    spare = torch.zeros(group.size, 1)
    exchange(spare, torch.zeros_like(spare), group)  # connections are made by what first uses them
    return group


def measured(mesh: Mesh, axes: tuple[str, ...], group: Group, how: Exchange = exchange) -> Link:
    """Every rank calls it, with its group along the same axes."""
    ranks = mesh.group(dist.get_rank(), axes)
    seconds = {}
    for size in (SMALL, *SIZES):
        out = torch.zeros(len(ranks), size, dtype=torch.uint8)
        into = torch.empty_like(out)
        taken = []
        for _ in range(ROUNDS):
            dist.barrier()
            begun = time.perf_counter()
            how(into, out, group)
            ended = torch.tensor([-begun, time.perf_counter()], dtype=torch.float64)
            dist.all_reduce(ended, dist.ReduceOp.MAX)
            taken.append(float(ended.sum()))
        seconds[size] = statistics.median(taken)
    # What passes the link of one position of the outermost axis: from its ranks to those of the group elsewhere.
    sharing = mesh.ranks // mesh.axis(axes[0]).size if axes[0] == mesh.names[0] else 1
    inner = len(ranks) // mesh.axis(axes[0]).size
    through = sharing * (len(ranks) - inner) * SIZES[-1]
    large, small = seconds[SIZES[-1]], min(seconds.values())
    bandwidth = through / max(large - small, large / 10)  # on a busy machine a small exchange may take as long
    return Link(axes, bandwidth, small, seconds)


def on_a_rank(mesh: Mapping[str, int], alone: bool, lock: str | None) -> list[dict[str, Any]]:
    """Each axis alone, and all together; `mesh` gives sizes by name, outermost first. The rest is as `quiet` has it."""
    made = Mesh("Measured", tuple(Axis(name, size) for name, size in mesh.items()))
    every = [(name,) for name in made.names] + ([made.names] if len(made.names) > 1 else [])
    groups = [connected(made, axes) for axes in every]
    with quiet(alone, lock):
        return [asdict(measured(made, axes, group)) for axes, group in zip(every, groups, strict=True)]
