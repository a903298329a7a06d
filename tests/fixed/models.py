"""Layers with random weights: as IR, as tensors by name, as values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moec.backends.hls.read import Read, read
from moec.fixed.interface import shapes
from moec.fixed.values import Values, gather
from moec.formats import FORMATS
from moec.oracle.interpreter import run
from moec.pipeline.driver import Compilation


@dataclass(frozen=True)
class Model:
    """A layer of a file, its tensors and samples.  `oracle` is its result in float64, by the interpreter of its IR."""

    found: Read
    tensors: dict[str, NDArray[Any]]
    values: Values
    x: NDArray[np.float64]
    tasks: NDArray[np.int64] | None
    oracle: NDArray[np.float64]


def model(folder: Path, text: str, tokens: int = 40, seed: int = 0) -> Model:
    """A layer with normal weights, whose router is sure of itself, on normal samples."""
    path = folder / "layer.moe"
    path.write_text(f"edition 1\n{text}")
    graph = Compilation(path).graph
    found = read(graph)
    layer, face = found.layer, found.interface
    rng = np.random.default_rng(seed)
    tensors: dict[str, NDArray[Any]] = {
        name: (rng.normal(size=shape) * (shape[-1] ** -0.5 if len(shape) > 1 else 0.3)).astype(np.float32)
        for name, shape in shapes(layer, face).items()
    }
    tensors[face.router.weight] *= 3.0
    for group in (face.routed, *face.shared):
        for source in (group.gate, group.up, group.down):
            if source is not None and source.scale is not None:
                form = FORMATS[layer.weights.value]
                shape = tensors[source.weight].shape
                tensors[source.weight] = rng.integers(-form.highest, form.highest, shape, endpoint=True).astype(np.int8)
                scale = rng.uniform(0.5, 1.5, shape[:-1]) * shape[-1] ** -0.5 / form.highest
                tensors[source.scale] = scale.astype(np.float32)
    x = rng.normal(size=(tokens, layer.width)).astype(np.float32).astype(np.float64)
    tasks = rng.integers(0, layer.router.tasks, tokens) if face.task is not None else None
    given: dict[str, NDArray[Any]] = {**tensors, "x": x}
    if face.task is not None and tasks is not None:
        given[face.task] = tasks
    return Model(found, tensors, gather(layer, face, tensors), x, tasks, run(graph, given)["y"])
