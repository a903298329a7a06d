"""ggml, the library under llama.cpp. It takes and returns f32, and quantises rows to int8 for quantised weights."""

from __future__ import annotations

import torch

from bench.ggml.library import Missing, library
from bench.ggml.model import Model
from bench.layer import Layer
from bench.routes.table import Run, Unavailable

KINDS = {"f32": "f32", "bf16": "bf16", "int8": "q8_0", "int4": "q4_K", "ternary": "tq2_0"}
BLOCK = {"q8_0": 32, "q4_0": 32, "q4_K": 256, "tq2_0": 256}
"""Weights along the inner dimension that ggml keeps together."""


def experts(layer: Layer, format: str, kind: str = "", repack: bool = False) -> Run:
    """The layer with weights in ggml's type `kind`, or in the one that comes nearest to `format`."""
    shape, kind = layer.shape, kind or KINDS[format]
    block = BLOCK.get(kind, 1)
    if any(size % block for size in (shape.d, shape.ff)):
        raise Unavailable(f"{kind} needs inner dimensions that are multiples of {block}")
    try:
        return Model(library(), layer, kind, torch.get_num_threads(), repack)
    except (Missing, LookupError) as why:
        raise Unavailable(str(why)) from why
