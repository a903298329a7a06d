"""A step of training by pieces gives the gradients of the layer that they are cut from."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from moec.runtime.losses import total
from tests.pieces.training import Tensors, Trained, trained

pytestmark = pytest.mark.long

LAYERS = {
    "f32": "layer L(d = 33, ff = 24) {\n  router softmax_top(3)\n  experts routed[7] = swiglu(d, ff) : f32\n"
    "  shared common[2] = swiglu(d, ff) : f32\n  tokens capacity(1.0)\n  loss balance(0.02, over = global)\n"
    "  loss z(0.001)\n}",
    "relu": "layer L(d = 24, ff = 17) {\n  router softmax_top(2)\n  experts routed[5] = mlp_relu(d, ff) : f32\n"
    "  tokens capacity(1.0)\n  loss balance(0.1)\n  loss z(0.01)\n}",
    "bf16": "layer L(d = 48, ff = 33) {\n  router deepseek_moe(3)\n  experts routed[6] = swiglu(d, ff) : bf16\n"
    "  shared common = swiglu(d, ff) : bf16\n}",
}


@cache
def loaded(name: str) -> Trained:
    return trained(LAYERS[name])


def of_losses(layer: Trained, routed: Tensors) -> Tensors:
    """The gradients of the tensors that the layer's losses are made of."""
    training = layer.whole.manifest.training
    assert training is not None
    tensors = {one.name: routed[one.name] for one in training.step if one.role == "loss"}
    leaves = {name: one.requires_grad_() for name, one in tensors.items() if one.is_floating_point()}
    if not leaves:
        return {}
    found = torch.autograd.grad(total(training.losses, {**tensors, **leaves}), list(leaves.values()))
    return dict(zip(leaves, found, strict=True))


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("tokens", [0, 1, 37])
def test_gradients(name: str, tokens: int) -> None:
    layer = loaded(name)
    random = torch.Generator().manual_seed(tokens)
    first = layer.whole.manifest.inputs[0]
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[first.dtype]
    x = torch.randn((tokens, *first.row), generator=random).to(dtype).requires_grad_()
    given = layer.whole(x)
    want, loss = given if isinstance(given, tuple) else (given, torch.zeros((), requires_grad=True))
    dy = torch.randn(want.shape, generator=random).to(dtype)
    parameters = dict(layer.whole.named_parameters())
    gradients = torch.autograd.grad([want, loss], [x, *parameters.values()], [dy, torch.ones(())])
    wanted = dict(zip(["x", *parameters], gradients, strict=True))
    y, found = layer.step(x.detach(), dy, lambda routed: of_losses(layer, routed))
    assert torch.equal(y, want)
    assert found.keys() == wanted.keys()
    for one in found:
        difference = (found[one].double() - wanted[one].double()).norm()
        assert difference <= (3e-6 if dtype == torch.float32 else 1e-2) * wanted[one].double().norm(), one
        if dtype == torch.float32:
            assert torch.equal(found[one], wanted[one]), one
