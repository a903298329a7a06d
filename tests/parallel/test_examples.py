"""Examples of layouts on meshes, from their text to real ranks, beside the same layer in one process."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh

import moec
from moec.artifact.container import read
from tests.parallel.ranks import run

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SMALL = {"d": 32, "ff": 16}
COUNTS = (5, 0, 11, 1)


@cache
def compiled(name: str, layout: str) -> Path:
    path = Path(mkdtemp(prefix="moec-test-")) / "layer.so"
    return moec.compile(EXAMPLES / f"{name}.moe", path, defines=SMALL, layout=layout)


def tokens() -> list[torch.Tensor]:
    x = torch.randn(sum(COUNTS), SMALL["d"], generator=torch.Generator().manual_seed(3)).bfloat16()
    return list(x.split(COUNTS))


def on_rank(path: str) -> list[torch.Tensor]:
    parallel = read(path).manifest.parallel
    assert parallel is not None
    layer = moec.load(path, mesh=init_device_mesh("cpu", parallel.mesh.shape, mesh_dim_names=parallel.mesh.names))
    layer.reset_parameters(0)
    x = tokens()[layer.rank]
    plain = layer(x)
    with torch.inference_mode():
        inferred = layer(x.clone())
    with torch.no_grad():
        again = layer(x)
    return [plain, inferred.clone(), again]


@pytest.mark.parametrize(("layout", "error"), [("Four", 0.0), pytest.param("Lean", 1e-2, marks=pytest.mark.slow)])
def test_two_nodes(layout: str, error: float) -> None:
    path = compiled("olmoe_two_nodes", layout)
    want = moec.load(path).reset_parameters(0)(torch.cat(tokens()))
    for mode in zip(*run(on_rank, 4, str(path)), strict=True):
        got = torch.cat(mode)
        assert (got - want).norm() <= error * want.norm()
        assert torch.equal(got, want) == (error == 0)
