"""Compiled layers that are trained on real ranks, beside the same artifacts in one process."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh

import moec
from moec.runtime.parallel.layer import ParallelLayer
from tests.parallel.ranks import run
from tests.pieces.chain import compiled
from tests.pieces.test_training import LAYERS as PIECES

pytestmark = pytest.mark.long

LAYERS = {
    "f32": PIECES["f32"],
    "bf16": "layer L(d = 48, ff = 32) {\n  router softmax_top(2)\n  experts routed[6] = swiglu(d, ff) : bf16\n}",
}
TOKENS = ((5, 9), (0, 17), (0, 0), (1, 0), (40, 64))
STEPS = 3
Named = dict[str, torch.Tensor]


@cache
def artifact(name: str) -> Path:
    return compiled(LAYERS[name], 2, training=True)


def data(columns: int, dtype: torch.dtype, tokens: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    x, target = (torch.randn(tokens, columns, generator=random).to(dtype) for _ in range(2))
    return x, target


def one_step(layer: torch.nn.Module, x: torch.Tensor, dy: torch.Tensor) -> Named:
    """The result, the loss and all gradients."""
    x = x.clone().requires_grad_()
    result = layer(x)
    y, loss = result if isinstance(result, tuple) else (result, torch.zeros(()))
    layer.zero_grad()
    torch.autograd.backward([y, loss] if loss.requires_grad else [y], [dy, torch.ones(())][: 1 + loss.requires_grad])
    found = {name: one.grad.clone() for name, one in layer.named_parameters()}
    return {**found, "x": x.grad, "y": y.detach(), "loss": loss.detach()}


def on_rank(paths: dict[str, str]) -> dict[str, list[Named]]:
    mesh = init_device_mesh("cpu", (2,), mesh_dim_names=("gpu",))
    found: dict[str, list[Named]] = {}
    for name, path in paths.items():
        layer = moec.load(path, mesh=mesh, training=True, timeout=120.0).reset_parameters(0)
        assert isinstance(layer, ParallelLayer)
        found[name] = []
        first = layer.manifest.inputs[0]
        dtype = torch.bfloat16 if first.dtype == "bf16" else torch.float32
        for number, counts in enumerate(TOKENS):
            begin = sum(counts[: layer.rank])
            own = slice(begin, begin + counts[layer.rank])
            x, dy = data(first.row[0], dtype, sum(counts), number)
            found[name].append(one_step(layer, x[own], dy[own]))
        layer.average_gradients()
        found[name].append(one_step(layer, x[own], dy[own]))
        found[name].append({"held": torch.tensor(layer._experts)})
    return found


@cache
def on_ranks() -> list[dict[str, list[Named]]]:
    return run(on_rank, 2, {name: str(artifact(name)) for name in LAYERS})


@pytest.mark.parametrize("name", LAYERS)
def test_a_step_is_that_of_one_process(name: str) -> None:
    ranks = [one[name] for one in on_ranks()]
    layer = moec.load(artifact(name), training=True).reset_parameters(0)
    first = layer.manifest.inputs[0]
    dtype = torch.bfloat16 if first.dtype == "bf16" else torch.float32
    exact = dtype is torch.float32
    for number, counts in enumerate(TOKENS):
        expected = one_step(layer, *data(first.row[0], dtype, sum(counts), number))
        ours = [rank[number] for rank in ranks]
        assert torch.equal(torch.cat([one["y"] for one in ours]), expected.pop("y"))
        for one in ours:
            torch.testing.assert_close(one["loss"], expected["loss"], rtol=1e-6, atol=0)
        expected.pop("loss")
        dx = torch.cat([one["x"] for one in ours])
        if exact:
            assert torch.equal(dx, expected.pop("x"))
        else:
            torch.testing.assert_close(dx, expected.pop("x"), rtol=2e-2, atol=2e-2)
        for parameter, gradient in expected.items():
            for rank, one in zip(ranks, ours, strict=True):
                if parameter.startswith("routed."):
                    held = rank[-1]["held"]
                    some = held >= 0
                    assert torch.equal(one[parameter][some], gradient[held[some]]), (counts, parameter)
                    assert not one[parameter][~some].any()
                else:
                    close = {"rtol": 1e-4, "atol": 1e-6} if exact else {"rtol": 2e-2, "atol": 2e-2}
                    torch.testing.assert_close(one[parameter], gradient, **close)
                    assert torch.equal(one[parameter], ours[0][parameter])


def test_means_of_gradients_have_auxiliary_losses_once() -> None:
    ranks = [one["f32"] for one in on_ranks()]
    layer = moec.load(artifact("f32"), training=True).reset_parameters(0)
    counts = TOKENS[-1]
    x, dy = data(layer.manifest.inputs[0].row[0], torch.float32, sum(counts), len(TOKENS) - 1)
    expected = one_step(layer, x, dy / 2)
    for rank in ranks:
        ours, held = rank[-2], rank[-1]["held"]
        for name, gradient in expected.items():
            if name.startswith("routed."):
                torch.testing.assert_close(ours[name][held >= 0], gradient[held[held >= 0]], rtol=1e-4, atol=1e-6)
            elif name not in ("x", "y", "loss"):
                torch.testing.assert_close(ours[name], gradient, rtol=1e-4, atol=1e-6)
