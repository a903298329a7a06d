"""Compiles layers for training, each only once in a run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

import pytest
import torch

import moec
from moec.runtime.module import Layer

Named = dict[str, torch.Tensor]
Train = Callable[..., Layer]


@pytest.fixture(scope="session")
def trainable(tmp_path_factory: pytest.TempPathFactory) -> Train:
    """`trainable(text)`: the layer of this file, compiled with its backward, with random weights."""
    folder = tmp_path_factory.mktemp("trainable")

    def get(text: str, seed: int = 0, highest: Mapping[str, int] | None = None) -> Layer:
        name = hashlib.sha256(text.encode()).hexdigest()[:16]
        artifact = folder / f"{name}.so"
        if not artifact.exists():
            source = folder / f"{name}.moe"
            source.write_text(text)
            moec.compile(source, artifact, training=True)
        layer = moec.load(artifact, training=True).reset_parameters(seed)
        randomise(layer, seed + 1, highest or {})
        return layer

    return get


def randomise(layer: Layer, seed: int, highest: Mapping[str, int]) -> None:
    """Give integers (tables) values below `highest`, and vectors, which `reset_parameters` makes small, normal ones."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in (*layer.named_parameters(), *layer.named_buffers()):
            if not tensor.is_floating_point():
                tensor.copy_(torch.randint(highest[name], tensor.shape, generator=generator))
            elif tensor.ndim == 1:
                tensor.copy_(torch.randn(tensor.shape, generator=generator))


def random_inputs(layer: Layer, tokens: int, seed: int = 0, highest: Mapping[str, int] | None = None) -> Named:
    """A tensor for each input of the layer; those of floats require gradients."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for spec in layer._signature.inputs:
        shape = (tokens, *spec.row)
        if spec.dtype.is_floating_point:
            found[spec.name] = torch.randn(shape, generator=generator).to(spec.dtype).requires_grad_()
        else:
            found[spec.name] = torch.randint((highest or {})[spec.name], shape, generator=generator).to(spec.dtype)
    return found


def gradients(layer: Layer, inputs: Named, seed: torch.Tensor, auxiliary: float = 0.0) -> Named:
    """Gradients of `(y * seed).sum() + auxiliary * losses` with respect to everything of floats that is trained."""
    result = layer(**inputs)
    y, loss = result if isinstance(result, tuple) else (result, torch.zeros(()))
    over = {name: t for name, t in (*inputs.items(), *layer.named_parameters()) if t.requires_grad}
    found = torch.autograd.grad((y * seed).sum() + auxiliary * loss, list(over.values()))
    return dict(zip(over, found, strict=True))


def state(layer: Layer, inputs: Named) -> Named:
    """All tensors of a call by name: weights, buffers, inputs."""
    return {**{name: t.detach() for name, t in layer.state_dict().items()}, **inputs}
