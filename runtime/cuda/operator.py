"""`torch.ops.moec.run` where its tensors are on a CUDA device.

Nothing waits for the device, and all memory comes from torch's allocator on torch's current stream, so that a call can
be captured in a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from moec.errors import DeviceError
from moec.runtime.cuda.opened import opened
from moec.runtime.dtypes import TORCH_DTYPES
from moec.runtime.native import pinned

_ALIGNMENT = 16


def run(
    packed: torch.Tensor | None,
    weights: Sequence[torch.Tensor],
    inputs: Sequence[torch.Tensor],
    artifact: str,
    variant: str,
) -> list[torch.Tensor]:
    """As `runtime/operator.py` says; `weights` are ordinary ones on the device of the inputs, `variant` is not read."""
    device = inputs[0].device
    manifest = pinned(artifact).manifest
    for tensor in (*inputs, *weights):
        if tensor.device != device:
            raise DeviceError(f"{manifest.layer}: tensors are on {device} and on {tensor.device}")
    there = opened(artifact, device.index)
    tokens = inputs[0].shape[0]
    bound = there.bound(weights)
    given = [tensor if tensor.data_ptr() % _ALIGNMENT == 0 else tensor.clone() for tensor in inputs]
    needed = there.workspace_bytes(tokens)
    try:
        outputs = [
            torch.empty((tokens, *one.row), dtype=TORCH_DTYPES[one.dtype], device=device) for one in manifest.outputs
        ]
        workspace = torch.empty(needed, dtype=torch.uint8, device=device)
    except torch.OutOfMemoryError as error:
        error.add_note(f"{manifest.layer} needs {needed} bytes of scratch memory on {device} for {tokens} tokens")
        raise
    there.run(bound, workspace, [*given, *outputs])
    return outputs
