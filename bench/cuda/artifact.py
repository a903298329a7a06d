"""Artifacts of the measured layers: compiling them where the compiler is, running them where only the runtime is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

import moec
from bench.cuda.shapes import Shape
from bench.cuda.steps.kept import held
from moec.runtime.cuda.opened import opened
from moec.runtime.module import Layer

TARGET = "cuda:sm_80,sm_90a,sm_100a"


def compile_all(shapes: Iterable[Shape], folder: Path, target: str = TARGET) -> None:
    """An artifact for each shape, `NAME.so`.  Needs moec's compiler and a CUDA compiler."""
    folder.mkdir(parents=True, exist_ok=True)
    for shape in shapes:
        source = folder / f"{shape.name}.moe"
        source.write_text(shape.source)
        print(f"compiling {shape.name}", flush=True)
        moec.compile(source, folder / f"{shape.name}.so", target=target, training=shape.trained)


def digest(folder: Path, shapes: Iterable[Shape]) -> str:
    """Of the artifacts of shapes: what is found holds for these alone."""
    made = hashlib.sha256()
    for shape in shapes:
        path = folder / f"{shape.name}.so"
        made.update(path.read_bytes() if path.exists() else b"")
    return made.hexdigest()[:16]


class Compiled:
    """An artifact on the current device, with weights."""

    def __init__(self, folder: Path, shape: Shape, weights: Mapping[str, torch.Tensor]) -> None:
        self.shape, self.path = shape, folder / f"{shape.name}.so"
        self.layer: Layer = moec.load(self.path, training=shape.trained).to("cuda")
        self.layer.load_state_dict(dict(weights))
        self.layer.eval()

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            result: torch.Tensor = self.layer(x)
        return result

    def poisoned(self, x: torch.Tensor) -> torch.Tensor:
        """The same through the native interface, with result and workspace full of NaN before the call."""
        entry = opened(self.layer.sha256, x.device.index).run
        bound = entry.bound(held(self.layer))
        workspace = torch.full((entry.workspace_bytes(len(x)),), 0xFF, dtype=torch.uint8, device=x.device)
        result = torch.full_like(x, float("nan"))
        entry.launch(bound, workspace, [x, result, *(None for _ in self.layer.manifest.statistics)])
        return result
