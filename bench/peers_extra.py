"""moec for an external harness of peers: `run.py --extra bench/peers_extra.py`.

The harness calls `f(layer, dtype, threads) -> run(x)` with `layer` holding f32 weights `router` [E, d],
`w13` [E, 2 ff, d], `w2` [E, d, ff] and, with shared experts, `sw13` and `sw2`. It runs this file by its path, so the
repository is put on the path here.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import peers
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.routes.moec_layer import moec_layer, moec_training
from bench.shapes import SHAPES, Shape

DTYPES = {"fp32": "f32", "bf16": "bf16"}
QUANTISED = {"int8": "int8", "q4_0": "int4"}
"""Formats under the harness's names; its q4_0 takes as many bytes as int4 with a scale for each 32 weights."""
PACKED = {"router": "router", "w13": "gate_up", "w2": "down", "sw13": "shared_gate_up", "sw2": "shared_down"}


def _shape(layer: Any) -> Shape:
    """The shape with the harness's sizes: same kind of router, shared experts or none."""
    for shape in SHAPES.values():
        shared = layer.S // shape.ff if shape.ff else 0
        sizes = (shape.d, shape.ff, shape.experts, shape.top_k, shape.shared, shape.renormalise)
        if sizes == (layer.H, layer.I, layer.E, layer.K, shared, layer.norm):
            return shape
    raise peers.Skip(f"no example has the sizes of {layer.name}")


class _Weights:
    """The harness's layer, seen as a bench.layer.Layer."""

    def __init__(self, layer: Any) -> None:
        self.shape = _shape(layer)
        self._layer = layer

    def weights(self, dtype: str) -> dict[str, torch.Tensor]:
        cast = self._layer.cast(torch.float32 if dtype == "f32" else torch.bfloat16)
        return {PACKED[name]: value for name, value in cast.items()}


@peers.peer("moec", dtypes=tuple(DTYPES))
def moec_peer(layer: Any, dtype: str, threads: int) -> Any:
    return moec_layer(_Weights(layer), DTYPES[dtype])


@peers.peer("moec_bf16_rows", dtypes=tuple(QUANTISED), xdtype="bf16")
def moec_quantised_peer(layer: Any, dtype: str, threads: int) -> Any:
    return moec_layer(_Weights(layer), QUANTISED[dtype])


@peers.peer("moec_int8_rows", dtypes=tuple(QUANTISED), xdtype="bf16")
def moec_int8_rows_peer(layer: Any, dtype: str, threads: int) -> Any:
    return moec_layer(_Weights(layer), QUANTISED[dtype], rows="int8")


@peers.peer("moec_training", dtypes=tuple(DTYPES), group="training")
def moec_training_peer(layer: Any, dtype: str, threads: int) -> Any:
    if not layer.train:
        raise peers.Skip("measured with --train")
    return moec_training(_Weights(layer), DTYPES[dtype]).run
