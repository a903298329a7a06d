"""Calling a layer: every form of input that is right, and the error of every one that is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.autograd import forward_ad

import moec
from moec.errors import (
    DeviceError,
    DtypeError,
    GradientError,
    InputError,
    LayoutError,
    MoecError,
    RangeError,
    ShapeError,
    WeightsError,
)
from moec.runtime.module import Layer
from tests.runtime import double


@pytest.mark.parametrize("leading", [(), (1,), (7,), (2, 3), (2, 1, 3), (0,), (0, 5), (5, 0)])
def test_tokens_of_any_leading_shape(layer: Layer, leading: tuple[int, ...]) -> None:
    x, ids = torch.randn(*leading, 4), torch.randint(0, 5, leading, dtype=torch.int32)
    y = layer(x, ids)
    assert y.shape == x.shape
    assert torch.equal(y, double.expected(x, ids))
    assert torch.equal(layer(task=ids, x=x), y)


@pytest.mark.parametrize("task", [3, torch.tensor(3), torch.tensor(3, dtype=torch.int32)])
@pytest.mark.parametrize("leading", [(), (4,), (2, 3), (0,)])
def test_one_id_for_all_tokens(layer: Layer, leading: tuple[int, ...], task: Any) -> None:
    x = torch.randn(*leading, 4)
    assert torch.equal(layer(x, task), double.expected(x, 3))


def test_one_input(tmp_path: Path) -> None:
    layer = moec.load(double.artifact(tmp_path, "ONE_INPUT"))
    layer.load_state_dict(double.weights())
    x = torch.randn(2, 5, 4)
    assert torch.equal(layer(x), double.expected(x, 0))


def test_in_every_grad_mode(layer: Layer) -> None:
    x = torch.randn(3, 4)
    with torch.no_grad():
        assert torch.equal(layer(x.clone().requires_grad_(), 1), double.expected(x, 1))
    with torch.inference_mode():
        assert torch.equal(layer(x, 1), double.expected(x, 1))
        y = layer(torch.ones(3, 4), 1)
    assert torch.equal(layer(y, 1), double.expected(y, 1))


def test_the_default_device_does_not_matter(layer: Layer) -> None:
    x = torch.randn(3, 4)
    with torch.device("meta"):
        y = layer(x, 2)
    assert torch.equal(y, double.expected(x, 2))


X, ID = torch.zeros(3, 4), torch.zeros(3, dtype=torch.int32)
WRONG: list[tuple[Callable[[Layer], object], type[MoecError], str]] = [
    (lambda f: f(X[:, :3].contiguous(), ID), ShapeError, r"input 'x' must have shape \[…, 4\], not \[3, 3\]"),
    (lambda f: f(torch.zeros(()), ID), ShapeError, r"must have shape \[…, 4\], not \[\]"),
    (lambda f: f(X, ID[:2]), ShapeError, r"'task' is for tokens of shape \[2\], but 'x' is for tokens of shape \[3\]"),
    (lambda f: f(X[None], ID), ShapeError, r"'task' is for tokens of shape \[3\], but 'x'.* \[1, 3\]"),
    (lambda f: f(X.double(), ID), DtypeError, r"must be torch.float32, not torch.float64; call `.to\(torch.float32\)`"),
    (lambda f: f(X, ID.long()), DtypeError, r"'task' must be torch.int32, not torch.int64"),
    (lambda f: f(X, torch.tensor(1.0)), DtypeError, r"'task' must be torch.int32, not torch.float32"),
    (lambda f: f(X.to("meta"), ID), DeviceError, "meta device and holds no values"),
    (lambda f: f(X, torch.empty((), dtype=torch.int32, device="meta")), DeviceError, "meta device"),
    (
        lambda f: f(torch.zeros(4, 3).t(), ID),
        LayoutError,
        r"not contiguous \(strides \[1, 3\]\); call `.contiguous\(\)`",
    ),
    (lambda f: f(torch.zeros(1, 4).expand(3, 4), ID), LayoutError, "not contiguous"),
    (lambda f: f(X.to_sparse(), ID), LayoutError, r"torch.sparse_coo tensor; call `.to_dense\(\)`"),
    (lambda f: f(torch.quantize_per_tensor(X, 0.1, 0, torch.qint8), ID), DtypeError, "is quantised"),
    (
        lambda f: f(X.clone().requires_grad_(), ID),
        GradientError,
        r"compiled without its backward.*moec compile --train",
    ),
    (lambda f: f(torch.nested.nested_tensor([X, X]), ID), LayoutError, r"nested tensor; .*`torch.cat\(x.unbind\(\)\)`"),
    (lambda f: torch.func.jvp(lambda x: f(x, ID), (X,), (X,)), GradientError, "no derivatives in forward mode.*vjp"),
    (lambda f: torch.vmap(f)(X, ID), InputError, r"cannot be called under `torch.vmap`.*call it once with all of them"),
    (lambda f: f([1.0], ID), InputError, "'x' must be a torch.Tensor, not list"),
    (lambda f: f(X, True), InputError, "'task' must be a torch.Tensor, an int for all tokens, not bool"),
    (lambda f: f(X, None), InputError, "not NoneType"),
    (lambda f: f(X, 5), RangeError, "Double: id lies outside its table of 5"),
    (lambda f: f(X, ID - 1), RangeError, "id lies outside its table"),
    (lambda f: f(X, 2**31), RangeError, "must fit 32 bits; 2147483648 does not"),
    (lambda f: f(X), InputError, r"Double takes \(x, task\): 'task' is missing"),
    (lambda f: f(X, ID, ID), InputError, "3 were given by position"),
    (lambda f: f(X, ID, x=X), InputError, "'x' was given twice"),
    (lambda f: f(X, tsk=ID), InputError, "'tsk' is not one of them; 'task' is missing"),
]


@pytest.mark.filterwarnings("ignore:.*quantiz.*", "ignore:.*nested tensors is in prototype")
@pytest.mark.parametrize(("call", "error", "says"), WRONG)
def test_wrong_inputs(layer: Layer, call: Callable[[Layer], object], error: type[MoecError], says: str) -> None:
    with pytest.raises(error, match=says):
        call(layer)
    assert torch.equal(layer(X, ID), double.expected(X, ID)), "an error leaves the layer usable"


def test_no_derivatives_in_forward_mode(layer: Layer) -> None:
    with forward_ad.dual_level():
        assert torch.equal(layer(X, ID), double.expected(X, ID)), "without a tangent nothing is lost"
        with torch.no_grad(), pytest.raises(GradientError, match="no derivatives in forward mode"):
            layer(forward_ad.make_dual(X, torch.ones_like(X)), ID)


def test_missing_weights_are_named(empty: Layer) -> None:
    with pytest.raises(WeightsError, match=r"no values yet for routed\.scale\.weight, shift, router\.table\."):
        empty(X, ID)
    empty.load_state_dict({"shift": double.weights()["shift"]}, strict=False)
    with pytest.raises(WeightsError, match=r"no values yet for routed\.scale\.weight, router\.table\."):
        empty(X, ID)


def test_the_native_checks_stand_behind(layer: Layer) -> None:
    with pytest.raises(ShapeError, match="packed buffer has a wrong size"):
        layer._store.kernel.call("pack", 0, torch.zeros(8, dtype=torch.uint8), torch.zeros(5, 4))
