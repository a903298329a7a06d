"""`torch.ops.moec.run`: the call of a compiled layer as an operator that torch's compiler and exporter understand.

    run(Tensor? packed, Tensor[] weights, Tensor[] inputs, str artifact, str variant) -> Tensor[]

packed    the packed weights (u8) of `variant`; or None: `weights` are packed when they come for the first time, or
          read as they are where they and the inputs are on a CUDA device
weights   nothing, or ordinary weights in the manifest's order: those that changed are packed again first
inputs    one tensor for each input of the manifest, `(T, *row)`
artifact  the SHA-256 that names the artifact; it must be loaded in the process that runs the operator
variant   one of the artifact's variants, or "" for the best that this processor can run
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch

from moec.errors import InputError
from moec.runtime.calls import run
from moec.runtime.cuda import operator as cuda
from moec.runtime.gradients import refuse_vmap
from moec.runtime.native import kernel
from moec.runtime.packing.weights import PackedWeights, adopted, owner

_SCHEMA = "run(Tensor? packed, Tensor[] weights, Tensor[] inputs, str artifact, str variant) -> Tensor[]"


@cache
def operator() -> Any:
    """The operator, registered with torch when it is first asked for."""
    _registration()
    return torch.ops.moec.run.default


@cache
def _registration() -> torch.library.Library:
    library = torch.library.Library("moec", "FRAGMENT")
    library.define(_SCHEMA, tags=(torch.Tag.pt2_compliant_tag, torch.Tag.needs_exact_strides))
    library.impl("run", _run, "CPU")
    library.impl("run", cuda.run, "CUDA")
    torch.library.register_fake("moec::run", _fake, lib=library)
    torch.library.register_vmap("moec::run", refuse_vmap, lib=library)
    return library


def _run(
    packed: torch.Tensor | None,
    weights: Sequence[torch.Tensor],
    inputs: Sequence[torch.Tensor],
    artifact: str,
    variant: str,
) -> list[torch.Tensor]:
    code = kernel(artifact, variant)
    store: PackedWeights | None
    if packed is None:
        made = store = adopted(code, weights)
        packed = made.buffer
    else:
        store = owner(packed)
        if store is not None:
            packed = store.buffer  # which may have moved since a program took hold of it
            if weights:
                store.refresh(weights)
        elif weights:
            raise InputError("moec::run: weights were given, but the packed buffer belongs to no layer")
    tokens = inputs[0].shape[0]
    probe, number = None, 0
    if store is not None and (published := store.published) is not None:
        build = published.choose(tokens)
        code, packed, probe, number = build.kernel, build.packed, build.probe, build.number
    outputs = [torch.empty((tokens, *row), dtype=dtype, device="cpu") for row, dtype in code.outputs]
    run(code, packed, inputs, outputs, store.statistics if store is not None else None, number, probe)
    return outputs


def _fake(
    packed: torch.Tensor | None,
    weights: Sequence[torch.Tensor],
    inputs: Sequence[torch.Tensor],
    artifact: str,
    variant: str,
) -> list[torch.Tensor]:
    tokens, device = inputs[0].shape[0], inputs[0].device
    code = kernel(artifact, variant)
    return [torch.empty((tokens, *row), dtype=dtype, device=device) for row, dtype in code.outputs]
