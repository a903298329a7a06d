"""Projects of small layers, written into a folder, and a simulator that is the reference."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from moec.artifact import hls
from moec.artifact.manifest import Source
from moec.backends.hls.read import read
from moec.fixed.design import Design, Memory, Order
from moec.fixed.parameters import Parameters
from moec.fixed.reference import forward
from moec.pipeline import describe
from moec.pipeline.driver import Compilation
from moec.runtime.hls.layer import SimulatedLayer
from tests.fixed.samples import BOARD

Files = Callable[[Design], dict[str, bytes]]


def write(folder: Path, text: str, files: Files = lambda design: {}, tokens: int = 8) -> Path:
    """A project of the layer in `text`, with these files; returns its folder."""
    source = folder / "layer.moe"
    source.write_text(f"edition 1\n{text}")
    graph = Compilation(source).graph
    found = read(graph)
    kinds = (Memory.BRAM, Memory.BRAM, Memory.BRAM)
    design = Design(found.layer, BOARD, 4, 8, 2, 64, tokens, Order.EXPERT, *kinds)
    made = files(design)
    project = hls.Project(
        compiler="moec test",
        layer=found.layer.name,
        source=Source(source.name, "ab" * 32),
        options={},
        target="hls:bench",
        inputs=describe.inputs(graph),
        outputs=describe.outputs(graph),
        parameters=describe.weights(graph),
        guarantees=describe.guarantees(graph),
        design=design,
        interface=found.interface,
        files={name: hashlib.sha256(data).hexdigest() for name, data in made.items()},
    )
    out = folder / "out"
    for name, data in made.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(data)
    out.mkdir(exist_ok=True)
    (out / hls.MANIFEST).write_bytes(project.to_json())
    return out


class Reference:
    """Simulates by `moec.fixed.reference`; counts how often parameters are prepared."""

    name = "reference"

    def __init__(self, design: Design) -> None:
        self.design = design
        self.prepared = 0

    def prepare(self, parameters: Parameters) -> Parameters:
        self.prepared += 1
        return parameters

    def run(self, prepared: Parameters, rows: NDArray[np.int64], tasks: NDArray[np.int64] | None) -> NDArray[np.int64]:
        return forward(self.design.layer, prepared, rows, tasks)

    def __deepcopy__(self, memo: dict[int, object]) -> Reference:
        return self


def layer(folder: Path, text: str) -> SimulatedLayer:
    """The layer of a project without files, simulated by the reference."""
    project = hls.read(write(folder, text))
    return SimulatedLayer(project, Reference(project.project.design))
