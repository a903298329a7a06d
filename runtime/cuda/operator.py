"""`torch.ops.moec.run`, `forward` and `backward` where their tensors are on a CUDA device.

Nothing waits for the device, and all memory comes from torch's allocator on torch's current stream, so that a call can
be captured in a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from moec.errors import DeviceError, GradientError
from moec.runtime.cuda.opened import Entry, Opened, opened
from moec.runtime.dtypes import TORCH_DTYPES
from moec.runtime.native import pinned
from moec.runtime.step import Step

_ALIGNMENT = 16

_Tensors = Sequence[torch.Tensor]


def run(
    packed: torch.Tensor | None, weights: _Tensors, inputs: _Tensors, artifact: str, variant: str
) -> list[torch.Tensor]:
    """As `runtime/operator.py` says; `weights` are ordinary ones on the device of the inputs, `variant` is not read."""
    there, device = _opened(artifact, inputs, weights)
    manifest = there.library.manifest
    tokens = inputs[0].shape[0]
    outputs = [
        torch.empty((tokens, *one.row), dtype=TORCH_DTYPES[one.dtype], device=device) for one in manifest.outputs
    ]
    unobserved = (None,) * len(manifest.statistics)
    there.run(tokens, weights, [*map(_aligned, inputs), *outputs, *unobserved])
    return outputs


def forward(inputs: _Tensors, weights: _Tensors, artifact: str, variant: str) -> list[torch.Tensor]:
    """As `runtime/gradients.py` says."""
    there, device = _opened(artifact, inputs, weights)
    tokens = inputs[0].shape[0]
    step = _step(there)
    results = [torch.empty(one.shape(tokens), dtype=one.dtype, device=device) for one in step.results]
    _trained(there.forward)(tokens, weights, [*map(_aligned, inputs), *results])
    return results


def backward(
    inputs: _Tensors, weights: _Tensors, saved: _Tensors, seeds: _Tensors, artifact: str, variant: str
) -> list[torch.Tensor]:
    """As `runtime/gradients.py` says."""
    there, device = _opened(artifact, inputs, weights)
    taken = [*inputs, *weights]
    results = [torch.empty(taken[i].shape, dtype=taken[i].dtype, device=device) for i in _step(there).gradients]
    _trained(there.backward)(inputs[0].shape[0], weights, [*map(_aligned, (*inputs, *saved, *seeds)), *results])
    return results


def _opened(artifact: str, inputs: _Tensors, weights: _Tensors) -> tuple[Opened, torch.device]:
    device = inputs[0].device
    for tensor in (*inputs, *weights):
        if tensor.device != device:
            layer = pinned(artifact).manifest.layer
            raise DeviceError(f"{layer}: tensors are on {device} and on {tensor.device}")
    return opened(artifact, device.index), device


def _aligned(tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.contiguous()
    return tensor if tensor.data_ptr() % _ALIGNMENT == 0 else tensor.clone()


def _step(there: Opened) -> Step:
    found = Step.of(there.library.manifest)
    if found is None:
        raise GradientError(f"{there.library.manifest.layer} was compiled for inference only")
    return found


def _trained(entry: Entry | None) -> Entry:
    if entry is None:
        raise GradientError("the artifact has no backward for CUDA devices")
    return entry
