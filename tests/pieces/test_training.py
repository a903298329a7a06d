"""A step of training by pieces gives the gradients of the layer that they are cut from."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import pytest
import torch

from tests.pieces.training import Trained, trained

LAYERS = {
    "f32": "layer L(d = 33, ff = 24) {\n  router softmax_top(3)\n  experts routed[7] = swiglu(d, ff) : f32\n"
    "  shared common[2] = swiglu(d, ff) : f32\n}",
    "relu": "layer L(d = 24, ff = 17) {\n  router switch()\n  experts routed[5] = mlp_relu(d, ff) : f32\n"
    "  tokens capacity(1.0)\n}",
    "bf16": "layer L(d = 48, ff = 33) {\n  router deepseek_moe(3)\n  experts routed[6] = swiglu(d, ff) : bf16\n"
    "  shared common = swiglu(d, ff) : bf16\n}",
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@cache
def loaded(name: str) -> Trained:
    return trained(LAYERS[name])


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("tokens", [0, 1, 37])
def test_gradients(name: str, tokens: int) -> None:
    layer = loaded(name)
    random = torch.Generator().manual_seed(tokens)
    first = layer.whole.manifest.inputs[0]
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[first.dtype]
    x = torch.randn((tokens, *first.row), generator=random).to(dtype).requires_grad_()
    want = layer.whole(x)
    dy = torch.randn(want.shape, generator=random).to(dtype)
    parameters = dict(layer.whole.named_parameters())
    wanted = dict(zip(["x", *parameters], torch.autograd.grad(want, [x, *parameters.values()], dy), strict=True))
    y, found = layer.step(x.detach(), dy, {})
    assert torch.equal(y, want)
    assert found.keys() == wanted.keys()
    for one in found:
        difference = (found[one].double() - wanted[one].double()).norm()
        assert difference <= (3e-6 if dtype == torch.float32 else 1e-2) * wanted[one].double().norm(), one
        if one != "x" and dtype == torch.float32:
            assert torch.equal(found[one], wanted[one]), one
