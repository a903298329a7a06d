"""Compiled layers as PyTorch trains them: optimizers, checkpointing, torch.compile, autocast, memory."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from moec.runtime.module import Layer

from .conftest import Train, random_inputs
from .reference import layer_text, relative_error

D, FF, E, K = 12, 9, 8, 2
TEXT = layer_text("softmax_top(2)", "swiglu(d, ff)")


class Twin(nn.Module):
    """The same layer in PyTorch, in float64."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.weights = nn.ParameterDict(
            {name.replace(".", "_"): tensor.detach().double() for name, tensor in layer.named_parameters()}
        )

    def forward(self, x: Tensor) -> Tensor:
        w = self.weights
        p, pick = (x @ w["router_logits_weight"].T).softmax(-1).topk(K)
        p = p / p.sum(-1, keepdim=True)
        gate, up = (torch.einsum("td,tkfd->tkf", x, w[f"routed_{n}_weight"][pick]) for n in ("gate", "up"))
        down = torch.einsum("tkf,tkdf->tkd", F.silu(gate) * up, w["routed_down_weight"][pick])
        return torch.einsum("tk,tkd->td", p, down)


@pytest.fixture
def layer(trainable: Train) -> Layer:
    return trainable(TEXT)


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_steps_of_an_optimizer(layer: Layer, name: str) -> None:
    twin = Twin(layer)
    x = random_inputs(layer, 64)["x"].detach()
    goal = torch.randn(64, D, generator=torch.Generator().manual_seed(2))
    options = {"SGD": {"lr": 0.5, "momentum": 0.9}, "AdamW": {"lr": 0.01}}[name]
    values: dict[bool, list[float]] = {True: [], False: []}
    for model, dtype in ((layer, torch.float32), (twin, torch.float64)):
        optimizer = getattr(torch.optim, name)(model.parameters(), **options)
        for _ in range(10):
            optimizer.zero_grad()
            loss = (model(x.to(dtype)) - goal).square().mean()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            values[model is layer].append(loss.item())
    assert values[True] == pytest.approx(values[False], rel=1e-4)
    assert values[True][-1] < values[True][0]
    for name, parameter in layer.named_parameters():
        assert relative_error(parameter.detach(), twin.weights[name.replace(".", "_")].detach()) < 1e-4
    layer.eval()
    with torch.no_grad():
        assert relative_error(layer(x), twin(x.double())) < 1e-4, "evaluation sees the trained weights"


def test_what_is_kept_for_backward(layer: Layer) -> None:
    """Index, weight, logits, gate and up: nothing else, and no permuted copies."""
    tokens = 50
    x = random_inputs(layer, tokens)["x"]
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = layer(x)
    for tensor in (x, *layer.parameters()):
        kept.pop(tensor.data_ptr(), None)
    index, weight, logits, gate, up = K * 4, K * 4, E * 4, K * FF * 4, K * FF * 4
    assert sum(kept.values()) == tokens * (index + weight + logits + gate + up)
    y.sum().backward()


def test_checkpointing(layer: Layer) -> None:
    x = random_inputs(layer, 30)["x"]
    plain = torch.autograd.grad(layer(x).square().sum(), [x, *layer.parameters()])
    checkpointed = torch.autograd.grad(
        checkpoint(layer, x, use_reentrant=False).square().sum(), [x, *layer.parameters()]
    )
    for a, b in zip(plain, checkpointed, strict=True):
        assert torch.equal(a, b)


def test_torch_compile(layer: Layer) -> None:
    torch._dynamo.reset()
    model = nn.Sequential(nn.Linear(D, D), layer, nn.SiLU())
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for tokens in (20, 31):
        x = random_inputs(layer, tokens)["x"]
        over = [x, *model.parameters()]
        want = torch.autograd.grad(model(x).square().sum(), over)
        got = torch.autograd.grad(compiled(x).square().sum(), over)
        for a, b in zip(got, want, strict=True):
            assert relative_error(a, b) < 1e-5


def test_autocast_with_weights_of_f32(trainable: Train) -> None:
    """The usual recipe of mixed precision: master weights of f32 are converted for the layer, gradients come back."""
    layer = trainable(layer_text("softmax_top(2)", "swiglu(d, ff)", dtype="bf16"))
    master = {name: p.detach().float().requires_grad_() for name, p in layer.named_parameters()}
    x = random_inputs(layer, 30)["x"].detach().float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        weights = {name: master[name].to(p.dtype) for name, p in layer.named_parameters()}
        y = torch.func.functional_call(layer, weights, (x,))
    assert y.dtype is torch.bfloat16
    y.float().square().sum().backward()
    assert x.grad.dtype is torch.float32
    for name, tensor in master.items():
        assert tensor.grad.dtype is torch.float32, name
        assert torch.count_nonzero(tensor.grad), name


def test_frozen_experts_and_frozen_router(layer: Layer) -> None:
    x = random_inputs(layer, 30)["x"]
    names = [name for name, _ in layer.named_parameters()]
    every = dict(zip(names, torch.autograd.grad(layer(x).square().sum(), list(layer.parameters())), strict=True))
    for frozen in ("routed", "router"):
        part = copy.deepcopy(layer)
        part.get_submodule(frozen).requires_grad_(False)
        part(x.detach()).square().sum().backward()
        for name, parameter in part.named_parameters():
            if name.startswith(frozen):
                assert parameter.grad is None
            else:
                assert torch.equal(parameter.grad, every[name])
