"""Random weights and inputs of a layer, of ordinary sizes and of awkward ones."""

from __future__ import annotations

import math

import torch

from moec.artifact.manifest import Manifest
from moec.formats import FORMATS
from moec.runtime.dtypes import TORCH_DTYPES
from tests.fuzz.routers import TASKS, VOCABULARY

Named = dict[str, torch.Tensor]

_TABLES = {"token": VOCABULARY, "task": TASKS}


def weights(manifest: Manifest, routing: str, generator: torch.Generator) -> Named:
    """A value for each parameter: such that sums are about 1, codes and tables over all of their range."""
    stored = {
        name: one.format for one in (manifest.quantised.stored if manifest.quantised else ()) for name in one.weights
    }
    experts = manifest.statistics[0].row[0]
    found = {}
    for weight in manifest.parameters:
        dtype = TORCH_DTYPES[weight.dtype]
        width = weight.shape[-1] if weight.name.endswith(".weight") else 1
        value = torch.randn(weight.shape, generator=generator) / math.sqrt(width)
        if dtype is torch.int8:
            how = FORMATS[stored[weight.name]]
            value = torch.randint(how.lowest, how.highest + 1, weight.shape, generator=generator)
        elif dtype is torch.int32:  # some numbers are no expert's, some stand twice
            value = torch.randint(-1, experts + 1, weight.shape, generator=generator)
        elif dtype is torch.float8_e4m3fn:
            value = torch.randn(weight.shape, generator=generator) * 50
        elif weight.name.endswith(".scale"):
            value = _scale(manifest, weight.name, weight.shape, generator)
        elif not weight.name.endswith(".weight"):
            value = value / 2
        if routing == "no router" and weight.name.startswith("router.") and weight.name.endswith("weight"):
            value = torch.zeros(weight.shape)
        found[weight.name] = value.to(dtype)
    return found


def _scale(manifest: Manifest, name: str, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Positive scales with which a product is about 1."""
    assert manifest.quantised is not None
    for one in manifest.quantised.stored:
        if name in one.scales:
            weight = one.weights[one.scales.index(name)]
            width = next(w.shape[-1] for w in manifest.parameters if w.name == weight)
            typical = {"int8": 74.0, "int4": 4.6, "ternary": 0.8, "fp8_e4m3": 50.0}[one.format]
            return (torch.rand(shape, generator=generator) + 0.5) / typical / math.sqrt(width)
    raise KeyError(name)


def inputs(manifest: Manifest, tokens: int, routing: str, generator: torch.Generator) -> Named:
    """A value for each input."""
    found = {}
    for one in manifest.inputs:
        dtype, shape = TORCH_DTYPES[one.dtype], (tokens, *one.row)
        if not dtype.is_floating_point:
            found[one.name] = torch.randint(_TABLES[one.name], shape, generator=generator).to(dtype)
            continue
        value = torch.randn(shape, generator=generator)
        match routing:
            case "all alike":
                value = value[:1].expand(shape)
            case "few kinds" if tokens:
                value = value[torch.randint(min(3, tokens), (tokens,), generator=generator)]
            case "large":  # more, and sigmoids of f32 would be 1 where the oracle's are not, and tie
                value = value * 2
            case "zeros":
                value = value * (torch.rand((tokens, *(1 for _ in one.row)), generator=generator) < 0.5)
        found[one.name] = value.to(dtype).contiguous()
    return found
