"""Compiled layers on real ranks beside the same artifacts in one process."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

import moec
from moec.artifact.manifest import Manifest
from moec.errors import MoecError, WeightsError
from moec.runtime.dtypes import TORCH_DTYPES
from moec.runtime.parallel.layer import ParallelLayer
from tests.parallel.ranks import run
from tests.pieces.chain import compiled
from tests.pieces.test_chain import LAYERS as CHAINS

LAYERS = {name: CHAINS[name] for name in ("shared", "capacity", "hash")}
TOKENS = ((5, 9), (0, 17), (0, 0), (1, 0), (64, 40))


@cache
def artifact(name: str) -> Path:
    return compiled(LAYERS[name], 2)


def inputs(manifest: Manifest, tokens: int, seed: int) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return [
        torch.randint(8, (tokens, *one.row), generator=random, dtype=torch.int32)
        if one.dtype == "i32"
        else torch.randn(tokens, *one.row, generator=random).to(TORCH_DTYPES[one.dtype])
        for one in manifest.inputs
    ]


def on_rank(paths: dict[str, str]) -> dict[str, list[torch.Tensor]]:
    mesh = init_device_mesh("cpu", (2,), mesh_dim_names=("gpu",))
    found = {}
    for name, path in paths.items():
        layer = moec.load(path, mesh=mesh, timeout=120.0)
        assert isinstance(layer, ParallelLayer)
        with pytest.raises(WeightsError, match=r"^L has no values yet for .*routed\."):
            layer(*inputs(layer.manifest, 1, 0))
        layer.reset_parameters(0)
        layer.statistics  # noqa: B018  counts from here on
        found[name] = []
        for number, counts in enumerate(TOKENS):
            begin = sum(counts[: layer.rank])
            whole = inputs(layer.manifest, sum(counts), number)
            mine = [one[begin : begin + counts[layer.rank]] for one in whole]
            with torch.inference_mode(number % 2 == 0):
                found[name].append(layer(*mine))
        found[name].append(torch.from_numpy(layer.load()))
        assert layer.timeline is not None
        assert {span.kind for span in layer.timeline.steps} >= {"route", "counts", "exchange", "experts", "collect"}
    _check_compiled(layer, mine, found[name][-2])
    _check_states(path, layer, mine, found[name][-2])
    return found


def _check_compiled(layer: ParallelLayer, mine: list[torch.Tensor], expected: torch.Tensor) -> None:
    traced = torch.compile(torch.nn.Sequential(Only(layer)), backend="eager")
    with torch.no_grad():
        assert torch.equal(traced(mine), expected)


class Only(torch.nn.Module):
    def __init__(self, layer: ParallelLayer) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, given: list[torch.Tensor]) -> torch.Tensor:
        return self.layer(*given)


def _check_states(path: str, layer: ParallelLayer, mine: list[torch.Tensor], expected: torch.Tensor) -> None:
    """A layer takes the weights of one process, of single experts, and its own."""
    whole = moec.load(path).reset_parameters(0).state_dict()
    single = {}
    for name, weight in whole.items():
        if name.startswith("routed."):
            single |= {f"{name}.{expert}": one for expert, one in enumerate(weight)}
        else:
            single[name] = weight
    own = {name: weight.clone() for name, weight in layer.state_dict().items()}
    for state in (whole, single, own):
        assert not torch.equal(layer.reset_parameters(1)(*mine), expected)
        layer.load_state_dict(state)
        assert torch.equal(layer(*mine), expected)
    lacking = f".{layer.table.held[layer.position][0]}"
    with pytest.raises(RuntimeError, match="Missing key"):
        layer.load_state_dict({name: one for name, one in single.items() if not name.endswith(lacking)})


def refused(path: str) -> list[str]:
    said = []
    for shape, names in (((2,), ("rank",)), ((2, 1), ("gpu", "tp"))):
        with pytest.raises(MoecError) as wrong:
            moec.load(path, mesh=init_device_mesh("cpu", shape, mesh_dim_names=names))
        said.append(str(wrong.value))
    return said


def test_another_mesh_is_refused_with_the_one_that_is_needed() -> None:
    for said in run(refused, 2, str(artifact("hash"))):
        assert all("gpu[2]" in text and "mesh_dim_names=('gpu',)" in text for text in said)


@cache
def on_ranks() -> list[dict[str, list[torch.Tensor]]]:
    return run(on_rank, 2, {name: str(artifact(name)) for name in LAYERS})


@pytest.mark.parametrize("name", LAYERS)
def test_every_bit_is_that_of_one_process(name: str) -> None:
    ranks = [one[name] for one in on_ranks()]
    layer = moec.load(artifact(name)).reset_parameters(0)
    layer.statistics  # noqa: B018
    for number, counts in enumerate(TOKENS):
        expected = layer(*inputs(layer.manifest, sum(counts), number))
        assert torch.equal(torch.cat([rank[number] for rank in ranks]), expected), counts
    for rank in ranks:
        assert rank[-1].tolist() == layer.statistics.snapshot().chosen.tolist()


def on_some(path: str) -> torch.Tensor | None:
    """Ranks 3 and 1 of four, in this order, are a mesh; the others have nothing to do with it."""
    numbers = [3, 1]
    mesh = DeviceMesh("cpu", numbers, mesh_dim_names=("gpu",))
    if dist.get_rank() not in numbers:
        return None
    layer = moec.load(path, mesh=mesh).reset_parameters(0)
    assert layer.rank == numbers.index(dist.get_rank())
    whole = inputs(layer.manifest, 9, 1)
    return layer(*(one[4 * layer.rank : 4 + 5 * layer.rank] for one in whole))


def test_some_ranks_in_another_order() -> None:
    ranks = run(on_some, 4, str(artifact("capacity")))
    layer = moec.load(artifact("capacity")).reset_parameters(0)
    assert torch.equal(torch.cat([ranks[3], ranks[1]]), layer(*inputs(layer.manifest, 9, 1)))
