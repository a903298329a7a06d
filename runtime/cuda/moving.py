"""Moving a layer's weights to a CUDA device and back.

On a device weights are ordinary tensors, read by the kernels where they are.  Those that kernels read as one tensor lie
behind each other in one piece of memory, of which each is a part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn

from moec.artifact.cuda import on_device
from moec.artifact.manifest import Manifest, Weight
from moec.runtime.dtypes import TORCH_DTYPES
from moec.runtime.memory import empty


def places(manifest: Manifest, device: torch.device) -> list[torch.Tensor]:
    """A tensor without values for every weight of the manifest, on `device`; on one of CUDA, for all of `on_device`."""
    weights: Sequence[Weight] = manifest.parameters
    found: dict[int, torch.Tensor] = {}
    if device.type != "cpu" and manifest.cuda is not None:
        weights = on_device(weights, manifest.quantised)
        for stack in manifest.cuda.stacks:
            if len(stack.parameters) > 1:
                found |= _stacked(weights, stack.parameters, device)
    for number, weight in enumerate(weights):
        if number not in found:
            dtype = TORCH_DTYPES[weight.dtype]
            found[number] = empty(weight.shape, dtype) if device.type == "cpu" else _on(weight.shape, dtype, device)
    return [found[number] for number in range(len(weights))]


def _stacked(
    weights: Sequence[Weight], numbers: Sequence[int], device: torch.device
) -> Iterator[tuple[int, torch.Tensor]]:
    members = [weights[number] for number in numbers]
    sizes = [member.shape[0] for member in members]
    whole = _on((sum(sizes), *members[0].shape[1:]), TORCH_DTYPES[members[0].dtype], device)
    return iter(zip(numbers, whole.split(sizes), strict=True))


def _on(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device=device)


def settle(
    present: torch.Tensor, place: torch.Tensor, value: Callable[[], torch.Tensor] | None, role: str
) -> torch.Tensor:
    """The tensor that stands for a weight from now on, with `place` as its memory.

    present  what stood for it: ordinary tensors stay the same objects, as optimisers hold them
    value    gives its values; None: it has none
    """
    with torch.no_grad():
        if value is not None:
            place.copy_(value())
        if type(present) in (torch.Tensor, nn.Parameter) and type(place) is torch.Tensor:
            present.data = place
            if present.grad is not None:
                present.grad.data = present.grad.data.to(place.device)
            return present
    if role == "parameter":
        return nn.Parameter(place, requires_grad=present.requires_grad)
    return place
