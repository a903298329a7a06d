"""What the links of a mesh give as Gloo sees them: bytes a second and seconds a message along each axis."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.distributed as dist

from bench.parallel.rank import quiet
from moec.schedule.mesh import Axis, Mesh

SMALL = 8
SIZES = (2**12, 2**14, 2**16, 2**18, 2**20)
"""Bytes to each other rank of a group."""
ROUNDS = 12


@dataclass(frozen=True)
class Link:
    """Of exchanges over one axis, or all of them, with all of its groups at once.

    axes       over which ranks exchange
    bandwidth  bytes/s each way through the link that a position of the outermost axis shares; of the largest exchange
    latency    seconds of an exchange of SMALL bytes
    seconds    of exchanges, by the bytes from each rank to each other one
    processor  seconds of the processor, all ranks together, for a byte that a rank sends
    """

    axes: tuple[str, ...]
    bandwidth: float
    latency: float
    seconds: Mapping[int, float]
    processor: float


def exchange(into: Sequence[torch.Tensor], out: Sequence[torch.Tensor], ranks: Sequence[int], group: Any) -> None:
    """From each rank of the group to each other; `into` and `out` by position, one's own is left out.

    Receives are posted before sends. Gloo asks for a message when it is received and has one connection between two
    ranks: what is asked for behind a message that is being sent waits for it, and a link is used one way at a time.
    """
    me = dist.get_rank(group)
    others = [(me + step) % len(ranks) for step in range(1, len(ranks))]
    posted = [dist.irecv(into[at], ranks[at], group=group) for at in reversed(others)]
    posted += [dist.isend(out[at], ranks[at], group=group) for at in others]
    for work in posted:
        work.wait()


def _group(mesh: Mesh, axes: tuple[str, ...]) -> Any:
    """The process group of this rank along these axes; every rank makes all of them."""
    made = {ranks: dist.new_group(list(ranks)) for ranks in mesh.groups(axes)}
    ranks = mesh.group(dist.get_rank(), axes)
    spare = torch.zeros(len(ranks), 1)
    exchange(spare.unbind(), spare.unbind(), ranks, made[ranks])  # connections are made by what first uses them
    return made[ranks]


def measured(mesh: Mesh, axes: tuple[str, ...], group: Any) -> Link:
    """Every rank calls it, with its group along the same axes."""
    ranks = mesh.group(dist.get_rank(), axes)
    seconds, processor = {}, 0.0
    for size in (SMALL, *SIZES):
        out = torch.zeros(len(ranks), size, dtype=torch.uint8)
        into = torch.empty_like(out)
        taken = []
        for _ in range(ROUNDS):
            dist.barrier()
            begun, busy = time.perf_counter(), time.process_time()
            exchange(into.unbind(), out.unbind(), ranks, group)
            used = time.process_time() - busy
            ended = torch.tensor([-begun, time.perf_counter()], dtype=torch.float64)
            dist.all_reduce(ended, dist.ReduceOp.MAX)
            taken.append(float(ended.sum()))
            processor = used / (size * (len(ranks) - 1))
        seconds[size] = statistics.median(taken)
    used = torch.tensor(processor, dtype=torch.float64)
    dist.all_reduce(used)
    # What passes the link of one position of the outermost axis: from its ranks to those of the group elsewhere.
    sharing = mesh.ranks // mesh.axis(axes[0]).size if axes[0] == mesh.names[0] else 1
    inner = len(ranks) // mesh.axis(axes[0]).size
    through = sharing * (len(ranks) - inner) * SIZES[-1]
    bandwidth = through / (seconds[SIZES[-1]] - seconds[SMALL])
    return Link(axes, bandwidth, seconds[SMALL], seconds, float(used) / dist.get_world_size())


def on_a_rank(mesh: Mapping[str, int], alone: bool, lock: str | None) -> list[dict[str, Any]]:
    """Each axis alone, and all together; `mesh` gives sizes by name, outermost first. The rest is as `quiet` has it."""
    made = Mesh("Measured", tuple(Axis(name, size) for name, size in mesh.items()))
    every = [(name,) for name in made.names] + ([made.names] if len(made.names) > 1 else [])
    groups = [_group(made, axes) for axes in every]
    with quiet(alone, lock):
        return [asdict(measured(made, axes, group)) for axes, group in zip(every, groups, strict=True)]
