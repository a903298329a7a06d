"""The bench's own gradients, and the steps that it times, on tiny layers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bench.cell import Cell
from bench.layer import Layer
from bench.limits import Prober
from bench.measure import Plan
from bench.routes import ROUTES, routes_for
from bench.routes.table import Trainable
from bench.shapes import SHAPES, Shape
from bench.training import check, measure_training_cell, reference, step

pytestmark = pytest.mark.long

TINY = replace(SHAPES["olmoe"], name="tiny", d=48, ff=32, experts=6, top_k=2)
WITH_SHARED = replace(TINY, shared=2, renormalise=True)


def _gradients_of_formula(layer: Layer, x: torch.Tensor, dy: torch.Tensor) -> dict[str, torch.Tensor]:
    """Every token by every expert, in float64, differentiated by torch."""
    shape = layer.shape
    w = {name: value.double().requires_grad_() for name, value in layer.weights("bf16").items()}
    token = x.double().requires_grad_()
    p = torch.softmax(token @ w["router"].T, -1)
    mask = torch.zeros_like(p).scatter_(-1, p.topk(shape.top_k, -1).indices, 1.0)
    weight = p * mask
    if shape.renormalise:
        weight = weight / weight.sum(-1, keepdim=True)
    gate, up = torch.einsum("td,end->ten", token, w["gate_up"]).chunk(2, -1)
    out = torch.einsum("ten,edn->ted", torch.nn.functional.silu(gate) * up, w["down"])
    y = (out * weight.unsqueeze(-1)).sum(1)
    if shape.shared:
        gate, up = (token @ w["shared_gate_up"].T).chunk(2, -1)
        y = y + (torch.nn.functional.silu(gate) * up) @ w["shared_down"].T
    y.backward(dy.double())
    return {"x": token.grad} | {name: value.grad for name, value in w.items()}


@pytest.mark.parametrize("shape", [TINY, WITH_SHARED], ids=["plain", "shared"])
def test_reference_gradients_are_those_of_the_formula(shape: Shape) -> None:
    layer = Layer(shape, seed=4)
    (x,) = layer.inputs(17, 1, "zipf")
    dy = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    expected, found = _gradients_of_formula(layer, x, dy), reference(layer, x, dy)
    torch.testing.assert_close(found.x, expected["x"])
    torch.testing.assert_close(found.router, expected["router"])
    assert found.experts
    for expert, gradients in found.experts.items():
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, expected[name][expert])


@pytest.mark.parametrize("shape", [TINY, WITH_SHARED], ids=["plain", "shared"])
@pytest.mark.parametrize("name", ["loop", "grouped_mm"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("f32", 1e-5), ("bf16", 5e-2)])
def test_routes_compute_the_gradients(shape: Shape, name: str, dtype: str, tolerance: float) -> None:
    layer = Layer(shape, seed=4)
    (x,) = layer.inputs(17, 1, "uniform")
    torch_dtype = torch.float32 if dtype == "f32" else torch.bfloat16
    dy = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).to(torch_dtype)
    trainable = ROUTES[name].build_training(layer, dtype)
    timing = check(trainable, x.to(torch_dtype), dy, layer.reference(x), reference(layer, x, dy))
    assert set(timing.gradient_errors) == {"x", "router", "gate_up", "down"}
    assert max(timing.error, *timing.gradient_errors.values()) < tolerance
    assert all(part.grad is None for parts in trainable.weights.values() for part in parts)
    assert step(trainable, dy)(x.to(torch_dtype)).shape == x.shape


@pytest.mark.parametrize(("file", "dtype", "tolerance"), [("olmoe", "bf16", 5e-2), ("deepseek-v2-lite", "f32", 1e-5)])
def test_moec_computes_the_gradients(file: str, dtype: str, tolerance: float) -> None:
    """The example itself, in narrow: its number of experts is not a parameter."""
    layer = Layer(replace(SHAPES[file], d=48, ff=32, defines=(("d", 48), ("ff", 32))), seed=4)
    (x,) = layer.inputs(17, 1, "uniform")
    torch_dtype = torch.float32 if dtype == "f32" else torch.bfloat16
    dy = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).to(torch_dtype)
    trainable = ROUTES["moec"].build_training(layer, dtype)
    timing = check(trainable, x.to(torch_dtype), dy, layer.reference(x), reference(layer, x, dy))
    assert max(timing.error, *timing.gradient_errors.values()) < tolerance
    assert all(part.grad is None for parts in trainable.weights.values() for part in parts)


def test_a_training_cell_shows_a_wrong_gradient() -> None:
    layer, prober = Layer(TINY), Prober(threads=1, mib_per_thread=8)
    right = ROUTES["loop"].build_training(layer, "f32")

    def doubled(x: torch.Tensor) -> torch.Tensor:
        y = right.run(x)
        return 2 * y - y.detach()

    routes = {"right": right, "wrong": Trainable(doubled, right.weights)}
    cell = measure_training_cell(layer, "f32", "uniform", 9, routes, prober, Plan(1, 0.001))
    assert max(cell.timings["right"].gradient_errors.values()) < 1e-5
    wrong = cell.timings["wrong"]
    assert wrong.error < 1e-5
    assert min(wrong.gradient_errors.values()) == pytest.approx(1, rel=1e-4)
    assert cell.flop == 3 * layer.flop(9)
    assert Cell.from_json(cell.as_json()) == cell


def test_only_what_has_a_backward_is_trained() -> None:
    names = routes_for("bf16", "training")
    assert {"loop", "grouped_mm", "hf_grouped_mm"} <= set(names)
    assert "zentorch" not in names
