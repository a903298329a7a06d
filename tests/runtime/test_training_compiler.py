"""Training inside torch.compile: no graph break, the same numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import moec
from moec.runtime.module import Layer
from tests.runtime import double
from tests.runtime.test_torch_compiler import Model, inputs

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"), pytest.mark.long]


@pytest.fixture(autouse=True)
def fresh() -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)


@pytest.fixture(params=["plain", "with losses"])
def model(request: pytest.FixtureRequest, training_path: Path, losses_path: Path) -> torch.nn.Module:
    layer = moec.load(losses_path if request.param == "with losses" else training_path, training=True)
    layer.load_state_dict(double.weights())
    return WithLosses(layer) if request.param == "with losses" else Model(layer)


class WithLosses(Model):
    def forward(self, x: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        result = self.moe(torch.nn.functional.silu(self.linear(x)), ids)
        if not self.training:
            return x + result
        y, loss = result
        return x + y + loss


def assert_same(compiled: list[torch.Tensor], plain: list[torch.Tensor]) -> None:
    """Equal but for what other sums around the layer make of f32."""
    for a, b in zip(compiled, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * float(b.detach().abs().max()))


def gradients(model: torch.nn.Module, run: torch.nn.Module, x: torch.Tensor, ids: torch.Tensor) -> list[torch.Tensor]:
    x = x.clone().requires_grad_()
    y = run(x, ids)
    return [y, *torch.autograd.grad(y.square().sum(), [x, *(p for p in model.parameters() if p.requires_grad)])]


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("dynamic", [None, True])
def test_full_graph(model: torch.nn.Module, backend: str, dynamic: bool | None) -> None:
    compiled = torch.compile(model, fullgraph=True, backend=backend, dynamic=dynamic)
    for leading in ((5,), (3,), (2, 3)):
        args = inputs(*leading)
        assert_same(gradients(model, compiled, *args), gradients(model, model, *args))
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(compiled(*args), model(*args))


def test_inductor(model: torch.nn.Module) -> None:
    if double.shutil.which("g++") is None:
        pytest.skip("inductor needs a C++ compiler")
    compiled = torch.compile(model, fullgraph=True, dynamic=True)
    for tokens in (5, 3):
        args = inputs(tokens)
        assert_same(gradients(model, compiled, *args), gradients(model, model, *args))


def test_steps_of_an_optimizer(model: torch.nn.Module) -> None:
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)
    args, values = inputs(16), []
    for _ in range(8):
        optimizer.zero_grad()
        value = (compiled(*args) - 1).square().mean()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values == sorted(values, reverse=True)
    assert values[-1] < values[0]


def test_the_operators_are_well_formed(trained: Layer) -> None:
    x, ids = inputs(3)
    x.requires_grad_()
    weights = trained._tensors()
    names = trained._artifact, trained.variant
    torch.library.opcheck(torch.ops.moec.forward.default, ([x, ids], weights, *names))
    step = trained._step
    assert step is not None
    with torch.no_grad():
        results = torch.ops.moec.forward([x, ids], weights, *names)
    seeds = [results[i] for i in step.seeds]
    saved = list(results[len(results) - len(step.saved) :])
    with torch.no_grad():
        torch.library.opcheck(torch.ops.moec.backward.default, ([x.detach(), ids], weights, saved, seeds, *names))


def test_export_is_for_inference(trained: Layer) -> None:
    x, ids = inputs(3)
    for mode in (True, False):
        program = torch.export.export(trained.train(mode), (x, ids))
        targets = [str(node.target) for node in program.graph.nodes]
        assert "moec.run.default" in targets
        assert torch.equal(program.module()(x, ids), double.expected(x, ids))
