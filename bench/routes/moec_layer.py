"""moec: the shape's example, compiled once per dtype and loaded with the layer's weights."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Protocol

import torch

from bench.routes.table import Run
from bench.shapes import Shape


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


def moec_layer(layer: Weights, dtype: str) -> Run:
    """Compile, load, fill."""
    import moec

    shape = layer.shape
    with tempfile.TemporaryDirectory() as folder:
        artifact = moec.compile(
            shape.path, Path(folder) / f"{shape.name}-{dtype}.so", defines={**dict(shape.defines), "dtype": dtype}
        )
        module = moec.load(artifact)
    module.load_state_dict(state_dict(layer, dtype))
    return module
