"""What `bench/gpu.py` does with layers through PyTorch, on the CPU: the same functions run on a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import moec
from bench.cuda import data, uses
from bench.cuda.shapes import Shape

SHAPE = Shape("Used", 4, 64, 32, 2, 20, trained=True)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("used")
    (folder / "used.moe").write_text(SHAPE.source)
    moec.compile(folder / "used.moe", folder / "used.so", training=True)
    return folder / "used.so"


def test_gradients_and_compiling(path: Path) -> None:
    weights = data.weights(SHAPE, CPU, 3)
    layer = moec.load(path, training=True)
    layer.load_state_dict(dict(weights))
    x = data.tokens(SHAPE, 20, CPU, 3)
    assert uses.gradients(layer, SHAPE, weights, x) == ""
    assert uses.compiled(layer, x) == ""


def test_wrong_gradients_are_found(path: Path) -> None:
    weights = data.weights(SHAPE, CPU, 3)
    layer = moec.load(path, training=True)
    layer.load_state_dict(dict(weights))
    x = data.tokens(SHAPE, 20, CPU, 3)
    other = {**weights, "routed.up.weight": weights["routed.up.weight"] * 1.1}
    assert "is off by" in uses.gradients(layer, SHAPE, other, x)
