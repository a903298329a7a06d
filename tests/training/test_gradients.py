"""Gradients of compiled layers, from the `.moe` file on, against PyTorch in float64 and against finite differences."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from moec import oracle
from moec.pipeline import Compilation
from moec.runtime.module import Layer

from .conftest import Named, Train, gradients, random_inputs, state
from .reference import Case, T, cases, gradients_of, layer_text, losses, relative_error, softmax_of_two

pytestmark = pytest.mark.long

TOLERANCE = {"f32": 1e-5, "bf16": 2e-2}
ALWAYS = (
    "mixtral(3)-f32",
    "deepseek_v3(3, groups = 4, top_groups = 2)-f32",
    "adamoe(4, nulls = 5)-f32",
    "task_moe(2, tasks = 3)-f32",
    "clamped_swiglu(d, ff, limit = 0.501953125)-f32",
    "shared gated_swiglu(d, ff)-f32",
    "mlp_gelu(d, ff, bias = true)-bf16",
)
"""What is tried in every run; each takes some seconds to compile."""


def _case(case: Case, dtype: str) -> Any:
    name = f"{case.name}-{dtype}"
    return pytest.param(case, dtype, id=name, marks=() if name in ALWAYS else pytest.mark.slow)


CASES = [_case(case, dtype) for dtype in TOLERANCE for case in cases(dtype)]


def compare(layer: Layer, reference: Callable[[Named], torch.Tensor], inputs: Named, tolerance: float) -> None:
    """Check y and the gradients of `(y * seed).sum()` for a random seed."""
    tensors = state(layer, inputs)
    exact = {n: t.detach().double() if t.is_floating_point() else t for n, t in tensors.items()}
    want = reference(exact)
    y = layer(**inputs)
    assert relative_error(y.detach(), want) < tolerance
    seed = torch.randn(y.shape, generator=torch.Generator().manual_seed(9)).to(y.dtype)
    wanted = gradients_of(lambda w: (reference(w) * seed).sum(), tensors)
    for name, got in gradients(layer, inputs, seed).items():
        assert got.dtype == tensors[name].dtype
        assert relative_error(got, wanted[name]) < tolerance, name


@pytest.mark.parametrize(("case", "dtype"), CASES)
def test_the_standard_library(trainable: Train, case: Case, dtype: str) -> None:
    layer = trainable(case.text, highest=case.highest)
    compare(layer, case.reference, random_inputs(layer, T, seed=3, highest=case.highest), TOLERANCE[dtype])


def softmax_case(dtype: str) -> Case:
    return next(case for case in cases(dtype) if case.name == "swiglu(d, ff)")


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("tokens", [0, 1, 2, 64, 301])
def test_any_number_of_tokens(trainable: Train, tokens: int, dtype: str) -> None:
    case = softmax_case(dtype)
    layer = trainable(case.text)
    compare(layer, case.reference, random_inputs(layer, tokens), TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_one_expert_gets_all(trainable: Train, dtype: str) -> None:
    case = softmax_case(dtype)
    layer = trainable(case.text)
    inputs = random_inputs(layer, 40)
    with torch.no_grad():
        inputs["x"][:, 0] = 3.0
        layer.router.logits.weight.zero_()
        layer.router.logits.weight[5, 0] = 2.0
        layer.router.logits.weight[2, 0] = 1.0
    compare(layer, case.reference, inputs, TOLERANCE[dtype])
    for name in ("gate", "up", "down"):
        (gradient,) = torch.autograd.grad(layer(**inputs).sum(), layer.routed.get_submodule(name).weight)
        assert torch.count_nonzero(gradient[[0, 1, 3, 4, 6, 7]]) == 0, "an expert without tokens gets zeros"


def test_finite_differences(trainable: Train, tmp_path: Path) -> None:
    """Along random directions, with the float64 oracle of the inference function."""
    text = layer_text("softmax_top(2)", "swiglu(d, ff)", "gated_swiglu(d, ff)")
    layer = trainable(text)
    file = tmp_path / "layer.moe"
    file.write_text(text)
    graph = Compilation(file).graph
    inputs = random_inputs(layer, T)
    point = {name: tensor.detach().double().numpy() for name, tensor in state(layer, inputs).items()}
    seed = torch.randn(T, point["x"].shape[1], generator=torch.Generator().manual_seed(5))
    found = gradients(layer, inputs, seed)
    rng = np.random.default_rng(0)
    for name, gradient in found.items():
        direction = rng.standard_normal(point[name].shape)
        direction /= np.linalg.norm(direction)
        step = 1e-5
        ends = [
            float((oracle.run(graph, {**point, name: point[name] + s * step * direction})["y"] * seed.numpy()).sum())
            for s in (1, -1)
        ]
        slope = (ends[0] - ends[1]) / (2 * step)
        assert abs(float((gradient.double().numpy() * direction).sum()) - slope) < 1e-4 * max(abs(slope), 1.0), name


BALANCE, Z = 0.3, 0.05
WITH_LOSSES = (f"loss balance({BALANCE})", f"loss z({Z})")


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_auxiliary_losses(trainable: Train, dtype: str) -> None:
    case = softmax_case(dtype)
    layer = trainable(layer_text("softmax_top(2)", "swiglu(d, ff)", dtype=dtype, more=WITH_LOSSES))
    inputs = random_inputs(layer, T)
    tensors = state(layer, inputs)
    y, loss = layer(**inputs)
    exact = {name: tensor.detach().double() for name, tensor in tensors.items()}
    assert abs(loss.item() - losses(exact, 2, BALANCE, Z).item()) < 1e-5
    seed = torch.randn(y.shape, generator=torch.Generator().manual_seed(9)).to(y.dtype)
    wanted = gradients_of(lambda w: (case.reference(w) * seed).sum() + 7 * losses(w, 2, BALANCE, Z), tensors)
    for name, got in gradients(layer, inputs, seed, auxiliary=7.0).items():
        assert relative_error(got, wanted[name]) < TOLERANCE[dtype], name
    only = torch.autograd.grad(layer(**inputs)[1], layer.router.logits.weight)[0]
    alone = gradients_of(lambda w: losses(w, 2, BALANCE, Z), tensors)["router.logits.weight"]
    assert relative_error(only, alone) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_bits_depend_on_neither_threads_nor_run(trainable: Train, dtype: str) -> None:
    layer = trainable(softmax_case(dtype).text)
    inputs = random_inputs(layer, 150)
    seed = torch.randn(inputs["x"].shape, generator=torch.Generator().manual_seed(9)).to(inputs["x"].dtype)
    want, before = gradients(layer, inputs, seed), torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 2):
            torch.set_num_threads(threads)
            for name, gradient in gradients(layer, inputs, seed).items():
                assert torch.equal(gradient, want[name]), (name, threads)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_the_gradient_of_a_token_does_not_depend_on_its_batch(trainable: Train, dtype: str) -> None:
    layer = trainable(softmax_case(dtype).text)
    x = random_inputs(layer, 150)["x"]
    seed = torch.randn(x.shape, generator=torch.Generator().manual_seed(9)).to(x.dtype)
    whole = gradients(layer, {"x": x}, seed)["x"]
    for start, stop in [(0, 1), (3, 5), (7, 30), (20, 150)]:
        part = x[start:stop].detach().requires_grad_()
        assert torch.equal(gradients(layer, {"x": part}, seed[start:stop])["x"], whole[start:stop])


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_poisoned_token_does_not_touch_the_gradients_of_others(trainable: Train, poison: float) -> None:
    layer = trainable(softmax_case("f32").text)
    x = random_inputs(layer, 40)["x"]
    seed = torch.randn(x.shape, generator=torch.Generator().manual_seed(9))
    clean = gradients(layer, {"x": x}, seed)["x"]
    with torch.no_grad():
        x[11, 3] = poison
        x[30] = poison
    dirty = gradients(layer, {"x": x}, seed)["x"]
    others = [t for t in range(40) if t not in (11, 30)]
    assert torch.equal(dirty[others], clean[others])


def test_evaluation_gives_the_same(trainable: Train) -> None:
    case = softmax_case("f32")
    layer = trainable(case.text)
    x = random_inputs(layer, 33)["x"].detach()
    y = layer(x).detach()
    with torch.no_grad():
        assert relative_error(layer.eval()(x), y) < 1e-6


def test_the_gate_of_the_references_is_the_layers(trainable: Train) -> None:
    """What the tests above assume of random inputs: no ties in f32 that float64 would break."""
    layer = trainable(softmax_case("f32").text)
    tensors = {n: t.detach().double() for n, t in state(layer, random_inputs(layer, 301)).items()}
    best = (tensors["x"] @ tensors["router.logits.weight"].T).topk(3, -1).values
    assert (best[:, 1] - best[:, 2]).min() > 1e-6
    assert (softmax_of_two(tensors) > 0).sum() == 602
