"""The weights of a layer for training are ordinary parameters to everything that torch does with parameters."""

from __future__ import annotations

import copy
import io
from pathlib import Path

import pytest
import torch
from torch import nn

import moec
from moec.errors import DeviceError, DtypeError, GradientError, ShapeError, WeightsError
from moec.runtime.module import Layer
from tests.runtime import double

X, ID = torch.randn(6, 4), torch.tensor([0, 3, 1, 3, 2, 4], dtype=torch.int32)


def twin() -> dict[str, torch.Tensor]:
    """The same weights for the same computation in PyTorch."""
    return {n: t.clone().requires_grad_(t.is_floating_point()) for n, t in double.weights().items()}


def state(layer: Layer) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in layer.state_dict().items()}


def test_parameters_are_leaves_that_require_gradients(training_path: Path) -> None:
    layer = moec.load(training_path, training=True)
    assert layer.training
    assert [name for name, _ in layer.named_parameters()] == ["shift", "routed.scale.weight"]
    for parameter in layer.parameters():
        assert type(parameter) is nn.Parameter
        assert parameter.requires_grad
        assert parameter.is_leaf
        assert parameter.is_cpu
    assert not layer.router.table.requires_grad


def test_other_layers_are_for_inference(layer: Layer, training_path: Path) -> None:
    assert not layer.training
    assert not moec.load(training_path).training
    layer.train()
    assert torch.equal(layer(X, ID), double.expected(X, ID)), "the mode means nothing to them"


def test_parameters_stay_the_same_objects(training_path: Path) -> None:
    layer = moec.load(training_path, training=True)
    before = [id(parameter) for parameter in layer.parameters()]
    layer.reset_parameters(1)
    layer.load_state_dict(double.weights())
    layer.train(False).train().requires_grad_(False).requires_grad_()
    assert [id(parameter) for parameter in layer.parameters()] == before


def test_an_artifact_for_inference_cannot_be_trained(path: Path, layer: Layer, kept: Layer) -> None:
    with pytest.raises(GradientError, match=r"compiled without its backward.*moec\.compile\(\.\.\., training=True\)"):
        moec.load(path, training=True)
    for module in (layer, kept):
        with pytest.raises(GradientError, match="moec compile --training"):
            module.requires_grad_()


def test_packed_weights_cannot_be_trained(training_path: Path, losses_path: Path) -> None:
    layer = moec.load(training_path)
    layer.load_state_dict(double.weights())
    with pytest.raises(GradientError, match=r"packed for inference.*moec\.load\(path, training=True\)"):
        layer(X.clone().requires_grad_(), ID)
    with pytest.raises(GradientError, match=r"moec\.load\(path, training=True\)"):
        layer.requires_grad_()
    with pytest.raises(GradientError, match=r"moec\.load\(path, training=True\)"):
        layer.shift.requires_grad = True
    layer.train()
    assert torch.equal(layer(X, ID), double.expected(X, ID))
    layer = moec.load(losses_path)
    layer.load_state_dict(double.weights())
    assert torch.equal(layer(X, ID), double.expected(X, ID))
    with pytest.raises(GradientError, match=r"auxiliary losses are computed in training mode.*`layer\.eval\(\)`"):
        layer.train()(X, ID)


def test_unpacked_weights_can_be_trained(training_path: Path) -> None:
    layer = moec.load(training_path)
    layer.load_state_dict(double.weights())
    layer.unpack().requires_grad_()
    layer(X, ID).sum().backward()
    assert torch.equal(layer.shift.grad, torch.full((4,), 6.0))
    layer.pack()
    assert layer.shift.is_meta
    assert torch.equal(layer(X, ID), double.expected(X, ID))


@pytest.mark.parametrize("mode", [True, False])
def test_missing_weights_are_named(training_path: Path, mode: bool) -> None:
    layer = moec.load(training_path, training=True).train(mode)
    with pytest.raises(WeightsError, match=r"no values yet for routed\.scale\.weight, shift, router\.table\."):
        layer(X, ID)
    nn.init.zeros_(layer.shift)
    layer.load_state_dict({"router.table": double.weights()["router.table"]}, strict=False)
    for module in (layer, copy.deepcopy(layer)):
        with pytest.raises(WeightsError, match=r"no values yet for routed\.scale\.weight\."):
            module(X, ID)
        module.routed.scale.weight.data = torch.ones(5, 4)
        assert torch.equal(module(X, ID), X)


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW", "Adagrad"])
def test_optimizers(trained: Layer, optimizer: str) -> None:
    weights = twin()
    own = getattr(torch.optim, optimizer)(trained.parameters(), lr=0.1)
    theirs = getattr(torch.optim, optimizer)([weights["shift"], weights["routed.scale.weight"]], lr=0.1)
    for _ in range(5):
        for module_loss, optim in ((trained(X, ID), own), (double.expected(X, ID, weights), theirs)):
            optim.zero_grad()
            module_loss.square().mean().backward()
            optim.step()
        own_norm = nn.utils.clip_grad_norm_(trained.parameters(), 0.5)
        torch.testing.assert_close(own_norm, nn.utils.clip_grad_norm_(theirs.param_groups[0]["params"], 0.5))
        with torch.no_grad():
            torch.testing.assert_close(trained.eval()(X, ID), double.expected(X, ID, weights))
            trained.train()
    for name, tensor in trained.named_parameters():
        torch.testing.assert_close(tensor, weights[name])


def test_evaluation_sees_every_change(trained: Layer) -> None:
    for value in (1.0, 2.0):
        nn.init.constant_(trained.shift, value)
        trained.eval()
        with torch.no_grad():
            y = trained(X, ID)
        assert torch.equal(y, double.expected(X, ID, state(trained)))
        assert torch.equal(trained.train()(X, ID), y)


def test_training_packs_nothing(trained: Layer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trained._store, "pack", lambda *_: pytest.fail("packed"))
    trained(X, ID).sum().backward()
    with torch.no_grad():
        trained(X, ID)
    trained.eval()(X.clone().requires_grad_(), ID).sum().backward()


def test_state_dict_and_files(trained: Layer, training_path: Path) -> None:
    assert trained.state_dict()["shift"].data_ptr() == trained.shift.data_ptr()
    stream = io.BytesIO()
    torch.save(trained.state_dict(), stream)
    stream.seek(0)
    for other in (moec.load(training_path), moec.load(training_path, training=True).eval()):
        stream.seek(0)
        other.load_state_dict(torch.load(stream))
        with torch.no_grad():
            assert torch.equal(other(X, ID), double.expected(X, ID))


def test_loading_with_assign_keeps_what_requires_gradients(trained: Layer) -> None:
    trained.shift.requires_grad_(False)
    given = double.weights()
    trained.load_state_dict(given, assign=True)
    assert trained.shift.data_ptr() == given["shift"].data_ptr()
    assert [p.requires_grad for p in trained.parameters()] == [False, True]


def test_deepcopy_and_moving_average(trained: Layer) -> None:
    average = torch.optim.swa_utils.AveragedModel(trained, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.5))
    average.update_parameters(trained)
    with torch.no_grad():
        trained.shift += 2
    average.update_parameters(trained)
    mean = double.weights()
    mean["shift"] = mean["shift"] + 1
    average.eval()
    with torch.no_grad():
        torch.testing.assert_close(average(X, ID), double.expected(X, ID, mean))
    other = copy.deepcopy(trained)
    other(X, ID).sum().backward()
    assert trained.shift.grad is None
    assert other.shift.grad is not None


def test_functional_call(trained: Layer, training_path: Path) -> None:
    packed = moec.load(training_path)
    packed.load_state_dict(double.weights())
    master = {name: tensor.detach().double().requires_grad_() for name, tensor in trained.named_parameters()}
    weights = {name: tensor.float() for name, tensor in master.items()}
    torch.func.functional_call(trained, weights, (X, ID)).sum().backward()
    assert torch.equal(master["shift"].grad, torch.full((4,), 6.0, dtype=torch.float64))
    assert trained.shift.grad is None
    table = {"router.table": double.weights()["router.table"]}
    weights = {name: tensor.float() for name, tensor in master.items()}
    torch.func.functional_call(packed, weights | table, (X, ID)).sum().backward()
    assert torch.equal(master["shift"].grad, torch.full((4,), 12.0, dtype=torch.float64))
    with pytest.raises(GradientError, match="packed for inference"):
        torch.func.functional_call(packed, {"shift": torch.zeros(4, requires_grad=True)}, (X, ID))


def test_weights_that_cannot_be_read_as_they_are(trained: Layer) -> None:
    wide = torch.randn(4, 5, requires_grad=True)
    y = torch.func.functional_call(trained, {"routed.scale.weight": wide.t()}, (X, ID))
    assert torch.equal(y, double.expected(X, ID, {**double.weights(), "routed.scale.weight": wide.t()}))
    y.sum().backward()
    assert wide.grad.shape == (4, 5)
    for value, error in (
        (torch.zeros(3), ShapeError),
        (torch.zeros(4).double(), DtypeError),
        (torch.zeros(4, device="meta"), DeviceError),
    ):
        with pytest.raises(error, match="weight 'shift'"):
            torch.func.functional_call(trained, {"shift": value.requires_grad_()}, (X, ID))


def test_conversions_are_refused(trained: Layer) -> None:
    trained.float().cpu().requires_grad_()
    with pytest.raises(DtypeError):
        trained.bfloat16()
    with pytest.raises(DeviceError):
        trained.to("meta")


def test_changes_between_forward_and_backward_are_torchs_error(trained: Layer) -> None:
    y = trained(X, ID)
    with torch.no_grad():
        trained.shift += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
