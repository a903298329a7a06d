"""Gradients through `torch.autograd`, whatever asks for them and in whatever form."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint

import moec
from moec.errors import DeviceError, DtypeError, GradientError, InputError, LayoutError, RangeError
from moec.runtime.module import Layer
from moec.runtime.recycling import RECYCLED
from tests.runtime import double

NAMES = ("x", "routed.scale.weight", "shift")
Objective = Callable[[Tensor], Tensor]


def case(*leading: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*leading, 4, generator=generator)
    return x.requires_grad_(), torch.randint(0, 5, leading, dtype=torch.int32, generator=generator)


def wanted(x: Tensor, ids: Tensor, objective: Objective) -> dict[str, Tensor]:
    """Gradients by PyTorch's own autograd."""
    weights = {n: t.clone().requires_grad_(t.is_floating_point()) for n, t in double.weights().items()}
    x = x.detach().clone().requires_grad_()
    found = torch.autograd.grad(
        objective(double.expected(x, ids, weights)), [x, *(weights[name] for name in NAMES[1:])]
    )
    return dict(zip(NAMES, found, strict=True))


def given(layer: Layer, x: Tensor) -> dict[str, Tensor | None]:
    return {"x": x.grad, "routed.scale.weight": layer.routed.scale.weight.grad, "shift": layer.shift.grad}


OBJECTIVES: dict[str, Objective] = {
    "squares": lambda y: y.square().sum(),
    "sum": lambda y: y.sum(),  # its gradient is one number, expanded
    "a part": lambda y: y[..., 1:3].sum() / 7,
    "transposed": lambda y: (y.movedim(-1, 0) * torch.arange(4.0).view(4, *[1] * (y.ndim - 1))).sum(),
}


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("leading", [(7,), (2, 3), (1,), (0,), (), (2, 0, 3)])
def test_gradients(trained: Layer, leading: tuple[int, ...], name: str) -> None:
    x, ids = case(*leading)
    y = trained(x, ids)
    assert torch.equal(y, double.expected(x, ids))
    OBJECTIVES[name](y).backward()
    for key, want in wanted(x, ids, OBJECTIVES[name]).items():
        torch.testing.assert_close(given(trained, x)[key], want)


@pytest.mark.parametrize("needing", [(), ("x",), ("shift",), ("x", "shift"), ("routed.scale.weight",), NAMES])
def test_only_what_requires_a_gradient_gets_one(trained: Layer, needing: tuple[str, ...]) -> None:
    x, ids = case(5)
    x.requires_grad_("x" in needing)
    for name, parameter in trained.named_parameters():
        parameter.requires_grad_(name in needing)
    y = trained(x, ids)
    assert y.requires_grad == bool(needing)
    if needing:
        y.square().sum().backward()
    want = wanted(x, ids, OBJECTIVES["squares"])
    for name, gradient in given(trained, x).items():
        if name in needing:
            torch.testing.assert_close(gradient, want[name])
        else:
            assert gradient is None


def test_gradients_add_up(trained: Layer) -> None:
    x, ids = case(8)
    trained(x, ids).square().sum().backward()
    whole = trained.shift.grad.clone(), trained.routed.scale.weight.grad.clone()
    trained.zero_grad()
    for part in (slice(0, 3), slice(3, 8)):
        trained(x[part], ids[part]).square().sum().backward()
    torch.testing.assert_close((trained.shift.grad, trained.routed.scale.weight.grad), whole)


def test_a_gradient_is_not_copied(trained: Layer, monkeypatch: pytest.MonkeyPatch) -> None:
    places = []

    def noted(*arguments: Any) -> Tensor:
        tensor = empty(*arguments)
        places.append(tensor.data_ptr())
        return tensor

    empty = RECYCLED.empty
    monkeypatch.setattr(RECYCLED, "empty", noted)
    trained(*case(5)).sum().backward()
    assert trained.routed.scale.weight.grad.data_ptr() in places


def test_the_same_graph_twice(trained: Layer) -> None:
    x, ids = case(4)
    total = trained(x, ids).square().sum()
    (first,) = torch.autograd.grad(total, x, retain_graph=True)
    (second,) = torch.autograd.grad(total, x)
    assert torch.equal(first, second)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(total, x)


def test_no_grad_and_eval(trained: Layer) -> None:
    x, ids = case(4)
    with torch.no_grad():
        assert not trained(x, ids).requires_grad
    with torch.inference_mode():
        assert trained(x.detach().clone(), ids.clone()).is_inference()
    trained.eval()
    trained(x, ids).sum().backward()
    assert x.grad is not None
    assert not trained.requires_grad_(False)(x.detach(), ids).requires_grad


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing(trained: Layer, losses_path: Path, reentrant: bool) -> None:
    with_losses = moec.load(losses_path, training=True)
    with_losses.load_state_dict(double.weights())
    x, ids = case(6)
    for layer in (trained, with_losses):

        def block(x: Tensor, layer: Layer = layer) -> Tensor:
            result = layer(torch.sin(x), ids)
            y, loss = result if isinstance(result, tuple) else (result, 0.0)
            return x + torch.cos(y) * (1 + loss)

        (plain,) = torch.autograd.grad(block(x).sum(), x)
        x.grad = None
        checkpoint(block, x, use_reentrant=reentrant).sum().backward()
        assert torch.equal(x.grad, plain)


def test_what_is_kept_for_backward(trained: Layer) -> None:
    x, ids = case(10)
    kept: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = trained(x, ids)
    own = {tensor.data_ptr() for tensor in (x, ids, *trained.state_dict().values())}
    more = [tensor for tensor in kept if tensor.data_ptr() not in own]
    assert [(tuple(t.shape), t.dtype) for t in more] == [((10,), torch.int32), ((20, 2), torch.float32)]
    y.sum().backward()


def test_what_is_kept_may_be_moved(trained: Layer) -> None:
    x, ids = case(10)
    (want,) = torch.autograd.grad(trained(x, ids).square().sum(), x)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.clone(), lambda t: t.clone()):
        y = trained(x, ids)
    (got,) = torch.autograd.grad(y.square().sum(), x)
    assert torch.equal(got, want)


def test_second_derivatives_are_refused(trained: Layer) -> None:
    x, ids = case(3)
    (first,) = torch.autograd.grad(trained(x, ids).square().sum(), x, create_graph=True)
    torch.testing.assert_close(first, wanted(x, ids, OBJECTIVES["squares"])["x"])
    with pytest.raises(GradientError, match="first derivatives only"):
        first.sum().backward()


def test_hooks(trained: Layer) -> None:
    x, ids = case(3)
    seen = []
    trained.shift.register_hook(lambda gradient: gradient * 2)
    trained.shift.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.clone()))
    trained(x, ids).sum().backward()
    assert torch.equal(seen[0], torch.full((4,), 6.0))


def test_several_threads(tmp_path: Path) -> None:
    layer = moec.load(double.artifact(tmp_path, "TRAINING", "SLEEP_US=200"), training=True)
    layer.load_state_dict(double.weights())

    def work(seed: int) -> bool:
        x, ids = case(1 + seed % 9, seed=seed)
        (got,) = torch.autograd.grad(layer(x, ids).square().sum(), x)
        return torch.allclose(got, wanted(x, ids, OBJECTIVES["squares"])["x"])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(64)))


def test_wrong_inputs(trained: Layer) -> None:
    x, ids = case(3)
    for bad, error in (
        ((x.double(), ids), DtypeError),
        ((x.to("meta"), ids), DeviceError),
        ((torch.zeros(4, 3, requires_grad=True).t(), ids), LayoutError),
        ((x, ids + 5), RangeError),
    ):
        with pytest.raises(error):
            trained(*bad)
    trained(x, ids).sum().backward()


def test_autocast(trained: Layer) -> None:
    x, ids = case(3)
    with torch.autocast("cpu", torch.bfloat16):
        y = trained(x.bfloat16(), ids)
        assert y.dtype is torch.float32, "the layer computes in its own dtype"
        y.sum().backward()
    assert x.grad.dtype is torch.float32
    assert torch.equal(y, double.expected(x.detach().bfloat16().float(), ids))
    with pytest.raises(DtypeError):
        trained(x.bfloat16(), ids)


def test_no_derivatives_in_forward_mode(trained: Layer) -> None:
    x, ids = case(3)
    weight = trained.routed.scale.weight
    with forward_ad.dual_level():
        with pytest.raises(GradientError, match="no derivatives in forward mode"):
            trained(forward_ad.make_dual(x.detach(), torch.ones_like(x)), ids)
        dual = {"routed.scale.weight": forward_ad.make_dual(weight.detach(), torch.ones_like(weight))}
        with pytest.raises(GradientError, match="no derivatives in forward mode"):
            torch.func.functional_call(trained, dual, (x.detach(), ids))


def test_vmap_says_what_to_do(trained: Layer) -> None:
    x, ids = case(3)
    with pytest.raises(InputError, match="cannot be called under"):
        torch.vmap(trained)(x, ids)
