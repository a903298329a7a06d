"""Layouts of a file, compiled and run on four real ranks, beside the same artifacts in one process."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh

import moec
from moec.runtime.parallel.layer import ParallelLayer
from tests.parallel.ranks import run

pytestmark = pytest.mark.long

SOURCE = """edition 1

layer Small(d = 64, ff = 32) {
  router softmax_top(3)
  experts routed[9] = swiglu(d, ff) : bf16
  shared common = swiglu(d, ff) : bf16
}

load Few { batch = 1..256 }

mesh Pod {
  axis node[2] : link(1 Gbit/s, 50 us)
  axis gpu[2] : link(10 GB/s, 5 us)
  device : memory(8 GiB), compute(100 GFLOP/s)
}

layout Exact for Small on Pod under Few {
  shard routed over node * gpu as ep, counts(3, 2, 1, 3), slots 5
  replicate routed[0..1] copies 3
  overlap dispatch, combine with common in 2 chunks
}

layout Nodes extends Exact {
  approx combine per node
  approx send dispatch as int8
}

layout Cut for Small on Pod under Few {
  shard tokens over node as dp
  shard routed over node as ep, counts(5, 4)
  approx shard routed over gpu as tp
  approx shard common over gpu as tp
}
"""
TOKENS = ((40, 3, 0, 11), (0, 0, 0, 30), (0, 0, 0, 0), (1, 1, 1, 1))
SAME = ("Cut",)
"""Layouts whose inner axis does not cut tokens."""


@cache
def artifact(layout: str) -> Path:
    folder = Path(mkdtemp(prefix="moec-test-"))
    (folder / "small.moe").write_text(SOURCE)
    return moec.compile(folder / "small.moe", folder / f"{layout}.so", layout=layout)


def batch(number: int, same: bool) -> tuple[torch.Tensor, list[int]]:
    """The tokens of a call, and where each rank's begin and end: `[begin, end, begin, end, ...]`."""
    counts = TOKENS[number]
    ends = torch.tensor(counts).cumsum(0).tolist()
    if same:
        bounds = [0, ends[1], 0, ends[1], ends[1], ends[3], ends[1], ends[3]]
    else:
        bounds = [bound for end, count in zip(ends, counts, strict=True) for bound in (end - count, end)]
    random = torch.Generator().manual_seed(number)
    return torch.randn(ends[-1], 64, generator=random).bfloat16(), bounds


def on_rank(paths: dict[str, str]) -> dict[str, list[torch.Tensor]]:
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("node", "gpu"))
    found: dict[str, list[torch.Tensor]] = {}
    for name, path in paths.items():
        layer = moec.load(path, mesh=mesh, timeout=120.0).reset_parameters(0)
        assert isinstance(layer, ParallelLayer)
        for number in range(len(TOKENS)):
            x, bounds = batch(number, name in SAME)
            begin, end = bounds[2 * layer.rank : 2 * layer.rank + 2]
            with torch.inference_mode():
                found.setdefault(name, []).append(layer(x[begin:end]))
    return found


@cache
def on_ranks() -> list[dict[str, list[torch.Tensor]]]:
    return run(on_rank, 4, {name: str(artifact(name)) for name in ("Exact", "Nodes", "Cut")})


@pytest.mark.parametrize(("name", "error"), [("Exact", 0.0), ("Nodes", 0.03), ("Cut", 0.008)])
def test_results_are_those_of_one_process(name: str, error: float) -> None:
    layer = moec.load(artifact(name)).reset_parameters(0)
    for number in range(len(TOKENS)):
        x, bounds = batch(number, name in SAME)
        expected = layer(x)
        for rank, ours in enumerate(on_ranks()):
            begin, end = bounds[2 * rank : 2 * rank + 2]
            if error:
                torch.testing.assert_close(ours[name][number], expected[begin:end], rtol=error, atol=error)
            else:
                assert torch.equal(ours[name][number], expected[begin:end]), (number, rank)
