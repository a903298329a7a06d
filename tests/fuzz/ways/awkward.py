"""Weights that are no numbers of an ordinary size: zeros, very small and very large ones."""

from __future__ import annotations

import torch

from moec.runtime.dtypes import TORCH_DTYPES
from tests.fuzz.inference import check, pack
from tests.fuzz.tensors import Named
from tests.fuzz.ways.tried import Tried


def run(tried: Tried) -> None:
    generator = torch.Generator().manual_seed(tried.sample.seed)
    for number, awkward in enumerate((_without, _small, _uneven)):
        layer = pack(tried.layer.kernel, awkward(tried, generator))
        check(layer, tried.graph, 19, tried.sample.routing, tried.sample.seed + number, None)


def _floats(tried: Tried) -> Named:
    """Weights of experts that are floats, and no scales."""
    return {
        name: tensor
        for name, tensor in tried.layer.given.items()
        if not name.startswith("router.")
        and tensor.dtype in TORCH_DTYPES.values()
        and tensor.dtype.itemsize > 1
        and tensor.is_floating_point()
        and not name.endswith(".scale")
    }


def _without(tried: Tried, generator: torch.Generator) -> Named:
    """Whole tensors, experts and channels are zeros."""
    changed = {}
    for name, tensor in _floats(tried).items():
        one = tensor.clone()
        for axis in range(tensor.ndim):
            keep = torch.rand(tensor.shape[: axis + 1], generator=generator) < 0.7
            one *= keep.view(*keep.shape, *(1 for _ in range(tensor.ndim - axis - 1)))
        changed[name] = one
    return {**tried.layer.given, **changed}


def _small(tried: Tried, generator: torch.Generator) -> Named:
    """Numbers near the least of the dtype, below what is normal too."""
    changed = {}
    for name, tensor in _floats(tried).items():
        least = torch.finfo(tensor.dtype).tiny
        part = torch.rand(tensor.shape[:1], generator=generator) < 0.5
        small = (torch.randn(tensor.shape, generator=generator, dtype=torch.float64) * least / 8).to(tensor.dtype)
        changed[name] = torch.where(part.view(-1, *(1 for _ in tensor.shape[1:])), small, tensor)
    return {**tried.layer.given, **changed}


def _uneven(tried: Tried, generator: torch.Generator) -> Named:
    """Experts whose weights are many times as large as those of others, and a number among them that stands out."""
    changed = {}
    for name, tensor in _floats(tried).items():
        exponents = torch.randint(-6, 5, tensor.shape[:1], generator=generator)
        one = tensor * (2.0**exponents).to(tensor.dtype).view(-1, *(1 for _ in tensor.shape[1:]))
        one.view(-1)[int(torch.randint(one.numel(), (), generator=generator))] = 40.0
        changed[name] = one
    return {**tried.layer.given, **changed}
