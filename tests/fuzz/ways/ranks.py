"""A layer that is spread over processes, beside one process that has all of their tokens."""

from __future__ import annotations

import torch
from torch.distributed.device_mesh import init_device_mesh

import moec
from moec.artifact import container
from moec.artifact.parallel import Parallel
from moec.runtime.parallel.layer import ParallelLayer
from tests.fuzz.tensors import Named
from tests.fuzz.ways.tried import Tried, require_same
from tests.parallel.ranks import run as on_ranks

SHARES = ((5, 3, 0, 11), (0, 0, 40, 0), (0, 0, 0, 0), (1, 1, 1, 1), (17, 64, 1, 70), (0, 1, 0, 0))
"""Tokens of each call and rank; where an axis does not cut tokens, of the first rank along it."""


def run(tried: Tried) -> None:
    parallel = container.read(tried.artifact).manifest.parallel
    assert parallel is not None
    bounds = [_bounds(parallel, shares) for shares in SHARES]
    batches = [tried.tokens(max(end for _, end in one)) for one in bounds]
    torch.save(tried.layer.given, tried.folder / "weights.pt")
    shape = tuple(axis.size for axis in parallel.mesh.axes)
    world = len(bounds[0])
    given = (str(tried.artifact), str(tried.folder / "weights.pt"), shape, parallel.mesh.names, bounds, batches)
    found = on_ranks(_on_rank, world, *given, timeout=200.0)
    for number, (batch, ends) in enumerate(zip(batches, bounds, strict=True)):
        wanted = tried.layer(batch)
        for rank, (begin, end) in enumerate(ends):
            require_same(found[rank][number], wanted[begin:end], f"rank {rank} of {world}, tokens {ends}")


def _bounds(parallel: Parallel, shares: tuple[int, ...]) -> list[tuple[int, int]]:
    """Where each rank's tokens begin and end."""
    sizes = [axis.size for axis in parallel.mesh.axes]
    found: list[tuple[int, int]] = []
    known: dict[tuple[int, ...], tuple[int, int]] = {}
    total = 0
    for rank in range(torch.Size(sizes).numel()):
        at = torch.unravel_index(torch.tensor(rank), sizes)
        place = tuple(int(i) for i, axis in zip(at, parallel.mesh.axes, strict=True) if axis.name in parallel.tokens)
        if place not in known:
            known[place] = total, total + shares[rank]
            total += shares[rank]
        found.append(known[place])
    return found


def _on_rank(
    path: str,
    weights: str,
    shape: tuple[int, ...],
    names: tuple[str, ...],
    bounds: list[list[tuple[int, int]]],
    batches: list[Named],
) -> list[torch.Tensor]:
    mesh = init_device_mesh("cpu", shape, mesh_dim_names=names)
    layer = moec.load(path, mesh=mesh, timeout=120.0)
    assert isinstance(layer, ParallelLayer)
    layer.load_state_dict(torch.load(weights, weights_only=True))
    found = []
    with torch.no_grad():
        for ends, batch in zip(bounds, batches, strict=True):
            begin, end = ends[layer.rank]
            found.append(layer(**{name: one[begin:end] for name, one in batch.items()}))
    return found
