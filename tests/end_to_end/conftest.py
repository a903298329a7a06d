"""Compiles layers for the tests of this folder, each only once in a run."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch_mlir import ir

import moec
from moec import oracle
from moec.pipeline import Compilation
from moec.runtime.adapt import start, worker
from moec.runtime.module import Layer

PATIENCE = 250.0
"""Seconds that a compiler in the background gets in tests."""

Compiled = tuple[Path, Callable[..., dict[str, np.ndarray]]]


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Compiled]:
    """`compiled(path, name=value, ...)`: the artifact of a layer, and the oracle of the same layer's graph."""
    done: dict[str, Compiled] = {}

    def get(path: Path, layer: str | None = None, **defines: Any) -> Compiled:
        key = f"{path}:{layer}:{sorted(defines.items())}"
        if key not in done:
            artifact = tmp_path_factory.mktemp("artifacts") / "layer.so"
            moec.compile(path, artifact, layer=layer, defines=defines)
            # its own module, because passes rewrite the one that is compiled
            graph: ir.Module = Compilation(path, layer, defines).graph
            done[key] = artifact, lambda tensors: oracle.run(graph, {n: exact(t) for n, t in tensors.items()})
        return done[key]

    return get


@pytest.fixture
def prompt_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compilers in the background get their share of a busy machine, and time: users' get what others leave of it."""
    monkeypatch.setattr(worker, "_in_turns", lambda command: command)
    monkeypatch.setattr(start, "Worker", partial(worker.Worker, PATIENCE))


def exact(tensor: torch.Tensor) -> np.ndarray:
    """The same numbers as a NumPy array (bf16 has no NumPy type)."""
    return tensor.detach().to(torch.float64).numpy() if tensor.is_floating_point() else tensor.numpy()


def random_layer(artifact: Path, seed: int = 0, **options: Any) -> Layer:
    return moec.load(artifact, **options).reset_parameters(seed)


def relative_error(got: torch.Tensor, want: np.ndarray) -> float:
    """Frobenius norm of the difference over that of `want`."""
    difference = exact(got) - want
    return float(np.linalg.norm(difference) / max(np.linalg.norm(want), 1e-30))
