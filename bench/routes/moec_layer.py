"""moec: the shape's example, compiled for a format and loaded with the layer's weights."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Protocol

import torch

from bench.formats import FORMATS
from bench.routes.table import Run, Trainable
from bench.shapes import Shape

HELD_BY = {
    "router": ["router.logits.weight"],
    "gate_up": ["routed.gate.weight", "routed.up.weight"],
    "down": ["routed.down.weight"],
    "shared_gate_up": ["common.gate.weight", "common.up.weight"],
    "shared_down": ["common.down.weight"],
}
"""Weights of bench.layer.Layer to the names of the .moe file."""


class Weights(Protocol):
    """What is needed of a bench.layer.Layer, so that another harness's layers fit too."""

    shape: Shape

    def weights(self, dtype: str) -> dict[str, torch.Tensor]: ...


def state_dict(layer: Weights, dtype: str) -> dict[str, torch.Tensor]:
    """The layer's weights under the names of the .moe file: router in f32, gate, up and down apart."""
    shape, weights = layer.shape, layer.weights(dtype)
    gate, up = weights["gate_up"].chunk(2, 1)
    state = {
        "router.logits.weight": weights["router"].float(),
        "routed.gate.weight": gate,
        "routed.up.weight": up,
        "routed.down.weight": weights["down"],
    }
    if shape.shared:
        gate, up = weights["shared_gate_up"].view(2, shape.shared, shape.ff, shape.d)
        down = weights["shared_down"].view(shape.d, shape.shared, shape.ff).permute(1, 0, 2)
        state |= {"common.gate.weight": gate, "common.up.weight": up, "common.down.weight": down}
    return state


def source(shape: Shape, format: str, rows: str = "") -> str:
    """The shape's example with its experts in a quantised format, and rows quantised to `rows` where they meet it."""
    lines = []
    for line in shape.path.read_text().splitlines():
        if line.strip().startswith(("experts ", "shared ")):
            line = line.replace(": dtype", f": {FORMATS[format].declared}")
        if rows and line == "}":
            lines.append(f"  approx rows as {rows}")
        lines.append(line)
    return "\n".join(lines) + "\n"


def moec_layer(layer: Weights, format: str, rows: str = "") -> Run:
    """Compile, load, fill; a quantised layer quantises the weights itself."""
    import moec

    shape, quantised = layer.shape, FORMATS[format].quantised
    defines: dict[str, int | str] = dict(shape.defines)
    with tempfile.TemporaryDirectory() as folder:
        path = shape.path
        if quantised:
            path = Path(folder) / shape.path.name
            path.write_text(source(shape, format, rows))
        else:
            defines["dtype"] = format
        module = moec.load(moec.compile(path, Path(folder) / "layer.so", defines=defines))
    module.load_state_dict(state_dict(layer, FORMATS[format].x))
    run: Run = module
    return run


def moec_training(layer: Weights, format: str) -> Trainable:
    """Compile with a backward pass."""
    import moec

    shape = layer.shape
    with tempfile.TemporaryDirectory() as folder:
        defines = {**dict(shape.defines), "dtype": format}
        module = moec.load(
            moec.compile(shape.path, Path(folder) / "layer.so", defines=defines, training=True), training=True
        )
    module.load_state_dict(state_dict(layer, format))
    module.train()
    named = dict(module.named_parameters())
    return Trainable(
        module, {name: [named[part] for part in parts if part in named] for name, parts in HELD_BY.items()}
    )


def moec_plain(layer: Weights, format: str) -> Run:
    """The layer without quantisation: what a format is faster than."""
    return moec_layer(layer, FORMATS[format].x)


def moec_threads(layer: Weights, format: str, threads: int) -> Run:
    """The layer on a number of threads of its own."""
    module = moec_layer(layer, format)

    def run(x: torch.Tensor) -> torch.Tensor:
        usual = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            return module(x)
        finally:
            torch.set_num_threads(usual)

    return run
