"""Simulated layers as modules of PyTorch."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from moec.errors import DtypeError, GradientError, InputError, RangeError, ShapeError, WeightsError
from moec.fixed.layout import layout
from moec.fixed.scales import CalibrationError
from moec.runtime.hls.layer import SimulatedLayer
from moec.runtime.hls.sample import Sample
from tests.runtime.hls.projects import Reference, layer

GELU = """layer L(d = 24, ff = 32) {
  router softmax_top(2)
  experts routed[4] = mlp_gelu(d, ff, bias = true) : int8(per = channel, x = f32)
}"""
TASKS = GELU.replace("softmax_top(2)", "task_moe(2, tasks = 3)")
GIVEN = GELU.replace("x = f32", "x = f32, prequantized = true")


@pytest.fixture
def gelu(tmp_path: Path) -> SimulatedLayer:
    made = layer(tmp_path, GELU).reset_parameters(0)
    made.calibrate(torch.randn(200, 24, generator=torch.Generator().manual_seed(1)))
    return made


def plain(weights: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """The layer in float64, written with torch."""
    w = {name: tensor.double() for name, tensor in weights.items()}
    p, pick = torch.softmax(x.double() @ w["router.logits.weight"].T, -1).topk(2)
    y = torch.zeros(x.shape, dtype=torch.float64)
    for t, row in enumerate(x.double()):
        for share, e in zip((p / p.sum(-1, keepdim=True))[t], pick[t], strict=True):
            hidden = torch.nn.functional.gelu(w["routed.up.weight"][e] @ row + w["routed.up.bias"][e])
            y[t] += share * (w["routed.down.weight"][e] @ hidden + w["routed.down.bias"][e])
    return y


def test_it_is_near_the_layer_in_float64(gelu: SimulatedLayer) -> None:
    x = torch.randn(100, 24, generator=torch.Generator().manual_seed(2))
    exact = plain(gelu.state_dict(), x)
    error = (gelu(x).double() - exact).norm(dim=1) / exact.norm(dim=1)
    assert error.median() < 0.03
    assert gelu.calibration is not None
    assert gelu.calibration.error.agreeing < 0.05


def test_its_state_dict_is_that_of_every_layer(gelu: SimulatedLayer, tmp_path: Path) -> None:
    names = {name: (tuple(t.shape), t.dtype) for name, t in gelu.state_dict().items()}
    assert names == {
        "router.logits.weight": ((4, 24), torch.float32),
        "routed.up.weight": ((4, 32, 24), torch.float32),
        "routed.up.bias": ((4, 32), torch.float32),
        "routed.down.weight": ((4, 24, 32), torch.float32),
        "routed.down.bias": ((4, 24), torch.float32),
    }
    other = layer(tmp_path, GELU)
    assert other.load_state_dict(gelu.state_dict()).missing_keys == []
    gelu.save_calibration(tmp_path / "scales.json")
    assert other.load_calibration(tmp_path / "scales.json") == gelu.calibration
    x = torch.randn(3, 5, 24)
    assert torch.equal(other(x), gelu(x))
    assigned = layer(tmp_path, GELU)
    assigned.load_state_dict(gelu.state_dict(), assign=True)
    assigned.load_calibration(tmp_path / "scales.json")
    assert torch.equal(assigned(x), gelu(x))


def test_shapes_dtypes_and_no_tokens(gelu: SimulatedLayer) -> None:
    assert gelu(torch.randn(2, 3, 24)).shape == (2, 3, 24)
    assert gelu(torch.randn(0, 24)).shape == (0, 24)
    assert gelu(torch.randn(24)).shape == (24,)
    with pytest.raises(ShapeError):
        gelu(torch.randn(2, 23))
    with pytest.raises(DtypeError):
        gelu(torch.randn(2, 24).double())
    with pytest.raises(InputError):
        gelu(torch.randn(2, 24), task=1)


def test_numbers_that_are_not_finite_spoil_their_row_alone(gelu: SimulatedLayer) -> None:
    x = torch.randn(4, 24)
    before = gelu(x)
    x[1, 3], x[2, 0] = float("nan"), float("-inf")
    after = gelu(x)
    assert torch.equal(after[[0, 3]], before[[0, 3]])
    assert after[1:3].isnan().all()


def test_changed_weights_are_prepared_anew_and_others_are_not(gelu: SimulatedLayer) -> None:
    simulator = gelu._simulator
    assert isinstance(simulator, Reference)
    x = torch.randn(4, 24)
    first, count = gelu(x), simulator.prepared
    assert torch.equal(gelu(x), first)
    assert simulator.prepared == count
    with torch.no_grad():
        gelu.get_parameter("routed.down.weight").mul_(2.0)
    assert not torch.equal(gelu(x), first)
    gelu.get_submodule("routed.down").weight = torch.nn.Parameter(torch.zeros(4, 24, 32), requires_grad=False)
    bias = gelu.state_dict()["routed.down.bias"]
    assert gelu(x).abs().max() <= bias.abs().max() * 1.01
    assert simulator.prepared == count + 2


def test_tasks_are_checked(tmp_path: Path) -> None:
    made = layer(tmp_path, TASKS).reset_parameters(0)
    x = torch.randn(60, 24)
    tasks = torch.arange(60, dtype=torch.int32) % 3
    made.calibrate(x, tasks)
    together = made(x, tasks)
    assert torch.equal(made(x[1::3].contiguous(), task=1), together[1::3])
    for wrong in (3, -1):
        with pytest.raises(RangeError, match="0 to 2"):
            made(x, wrong)
    with pytest.raises(InputError):
        made(x)


def test_weights_may_be_given_as_codes(tmp_path: Path) -> None:
    made = layer(tmp_path, GIVEN).reset_parameters(0)
    assert made.state_dict()["routed.up.weight"].dtype is torch.int8
    assert made.calibrate(torch.randn(100, 24)).error.agreeing < 0.05


def test_weights_and_scales_are_asked_for(tmp_path: Path) -> None:
    made = layer(tmp_path, GELU)
    with pytest.raises(CalibrationError, match="no scales yet"):
        made(torch.randn(1, 24))
    with pytest.raises(CalibrationError, match="no scales yet"):
        made.save_calibration(tmp_path / "none.json")
    (tmp_path / "out" / "calibration.json").write_text("{}")
    with pytest.raises(CalibrationError, match=r"load_calibration\('.*/out/calibration.json'\)`, where weights are"):
        made(torch.randn(1, 24))
    with pytest.raises(WeightsError, match=r"router\.logits\.weight"):
        made.calibrate(torch.randn(10, 24))
    given = layer(tmp_path, GELU).reset_parameters(0).state_dict()
    del given["routed.up.bias"]
    made.load_state_dict(given, strict=False)
    with pytest.raises(WeightsError, match=r"for routed\.up\.bias\."):
        made.calibrate(torch.randn(10, 24))


def test_there_is_no_gradient(gelu: SimulatedLayer) -> None:
    x = torch.randn(2, 24, requires_grad=True)
    with pytest.raises(GradientError, match="no_grad"):
        gelu(x)
    with torch.no_grad():
        gelu(x)


def test_copies_are_apart(gelu: SimulatedLayer) -> None:
    twin = copy.deepcopy(gelu)
    x = torch.randn(3, 24)
    assert torch.equal(twin(x), gelu(x))
    twin.reset_parameters(5)
    assert not torch.equal(twin(x), gelu(x))


def test_it_stands_in_a_model(gelu: SimulatedLayer) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(24, 24), gelu, torch.nn.LayerNorm(24))
    with torch.no_grad():
        assert model(torch.randn(7, 24)).shape == (7, 24)
        compiled = torch.compile(model, backend="eager")
        x = torch.randn(7, 24)
        assert torch.equal(compiled(x), model(x))
    assert {name.split(".")[0] for name in model.state_dict()} == {"0", "1", "2"}


def test_seeds_are_reproducible(tmp_path: Path) -> None:
    one, two = (layer(tmp_path, GELU).reset_parameters(3).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_what_it_says_of_itself(gelu: SimulatedLayer) -> None:
    assert gelu.extra_repr() == "L, hls:bench, reference, calibrated"


def test_the_layers_of_a_model_are_calibrated_by_running_it(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, second = (layer(tmp_path / name, GELU).reset_parameters(seed) for seed, name in enumerate("ab"))
    model = torch.nn.Sequential(first, torch.nn.LayerNorm(24), second)
    x = torch.randn(100, 24)
    x[3, 3] = float("nan")
    with torch.no_grad(), first.calibrating(), second.calibrating(most=60):
        exact = model(x[10:])
        assert torch.allclose(exact, plain(second.state_dict(), model[:2](x[10:])).float(), atol=1e-5)
        model(x[:10])
    assert first.calibration is not None
    assert second.calibration is not None
    assert first.calibration.error.tokens == 189  # the first twice, without the row that is not finite
    assert second.calibration.error.tokens == 60
    assert first.calibration.error.agreeing < 0.05
    with torch.no_grad():
        got = model(x[10:])
    assert 0.0 < float((got - exact).norm() / exact.norm()) < 0.3
    assert first._simulator.name == "reference"


def test_a_calibration_that_fails_changes_nothing(gelu: SimulatedLayer) -> None:
    before = gelu.calibration
    with pytest.raises(RuntimeError), gelu.calibrating():
        raise RuntimeError
    with pytest.raises(CalibrationError, match="at least one"), gelu.calibrating():
        pass
    assert gelu.calibration is before
    assert gelu(torch.randn(2, 24)).isfinite().all()


def test_samples_are_spread_evenly_over_calls() -> None:
    sample = Sample(500)
    for number in range(10):
        sample.add(np.full((300, 2), float(number)), np.full(300, number))
    assert sample.x.shape == (500, 2)
    assert sample.tasks is not None
    assert np.array_equal(sample.x[:, 0], sample.tasks)
    assert 20 < np.bincount(sample.tasks).min() <= np.bincount(sample.tasks).max() < 80


def test_the_memory_of_a_board_is_given(gelu: SimulatedLayer) -> None:
    design = gelu.project.design
    assert gelu.memory().shape == (design.ports, layout(design).beats, design.port_bits // 8)
