"""Calibration: the layer in float64 is the oracle's, scales fit the samples, errors are what they are said to be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import moec
from moec.errors import WeightsError
from moec.fixed import real
from moec.fixed.calibrate import best_scale, calibrate, measure
from moec.fixed.convert import convert, rows_to_codes
from moec.fixed.reference import forward
from moec.fixed.scales import CalibrationError, read_calibration
from moec.fixed.values import gather, quantise
from moec.formats import FORMATS
from tests.fixed.models import model


def layer(router: str = "softmax_top(2)", expert: str = "mlp_gelu(d, ff)", form: str = "f32", more: str = "") -> str:
    return f"layer L(d = 48, ff = 64) {{\n router {router}\n experts routed[6] = {expert} : {form}\n{more}\n}}"


LAYERS = {
    "gelu": layer(expert="mlp_gelu(d, ff, bias = true)"),
    "silu": layer(router="sigmoid_top(2)", expert="swiglu(d, ff)"),
    "relu": layer(router="switch()", expert="mlp_relu(d, ff)"),
    "tasks": layer(router="task_moe(2, tasks = 3)"),
    "chosen": layer(router="mixtral(2)", expert="geglu(d, ff)"),
    "selection": layer(router="deepseek_v3(2, groups = 1, top_groups = 1)", expert="swiglu(d, ff)"),
    "shared": layer(
        expert="swiglu(d, ff)", more=" shared one[2] = swiglu(d, 32) : f32\n shared two = swiglu(d, 32) : f32"
    ),
    "own": """router own(k) {
 logits = linear(x, count, bias = true)
 s      = sigmoid(logits)
 kept   = buffer(count)
 pick   = top_k(kept + s, k)
 chosen_s = s over pick
 weight = 1.5 * (chosen_s / sum(chosen_s))
}
"""
    + layer(router="own(2)", expert="geglu(d, ff)"),
    "logits": """router plain(k) {
 logits = linear(x, count, bias = true)
 pick   = top_k(logits, k)
 weight = 0.5 * logits
}
"""
    + layer(router="plain(3)", expert="mlp_relu(d, ff, bias = true)"),
    "given": layer(expert="swiglu(d, ff)", form="int8(per = channel, prequantized = true, x = f32)"),
}


@pytest.mark.parametrize("name", LAYERS)
def test_the_layer_in_float64_is_the_oracles(tmp_path: Path, name: str) -> None:
    made = model(tmp_path, LAYERS[name])
    got = real.forward(made.found.layer, made.values, made.x, made.tasks)
    assert np.abs(got.y - made.oracle).max() < 1e-5 * np.abs(made.oracle).max()  # 1/sqrt(2) is an f32 in the IR


@pytest.mark.parametrize("name", LAYERS)
def test_sixteen_bits_are_near_the_oracle_for_every_kind_of_layer(tmp_path: Path, name: str) -> None:
    made = model(tmp_path, LAYERS[name], tokens=200)
    found = calibrate(made.found.layer, made.values, made.x, made.tasks)
    eight = name == "given"
    assert found.error.agreeing < (0.04 if eight else 0.001)
    assert found.error.experts > (0.9 if eight else 0.99)
    parameters = convert(made.found.layer, made.values, found.scales)
    rows = rows_to_codes(made.found.layer, made.x, found.scales.x)
    result = forward(made.found.layer, parameters, rows, made.tasks) * found.scales.y
    error = np.linalg.norm(result - made.oracle) / np.linalg.norm(made.oracle)
    assert error == pytest.approx(found.error.relative, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize(
    ("form", "most"),
    [("f32", 0.001), ("int8(per=channel)", 0.04), ("int4(per=channel)", 0.3), ("ternary(per=channel)", 0.95)],
)
def test_the_error_grows_as_weights_get_narrower(tmp_path: Path, form: str, most: float) -> None:
    made = model(tmp_path, layer(expert="swiglu(d, ff)", form=form), tokens=200)
    error = calibrate(made.found.layer, made.values, made.x).error
    assert most / 4 < error.agreeing < most
    assert error.clamped_y == 0.0
    assert error.tokens == 200


@pytest.mark.parametrize("form", ["int8", "int4", "ternary"])
def test_codes_are_those_that_the_cpu_packs(form: str) -> None:
    weights = torch.randn(7, 33)
    weights[2] = 0.0
    codes, scales = moec.quantize(weights, form)
    ours, our_scales = quantise(weights.numpy(), FORMATS[form])
    assert ours.tolist() == codes.tolist()
    assert our_scales.tolist() == scales.tolist()


def test_outliers_are_clipped_where_that_is_the_smaller_error() -> None:
    numbers = np.random.default_rng(0).normal(size=200_000)
    numbers[0] = 40.0
    assert 3.0 < best_scale(numbers, 8) * 127 < 30.0
    assert best_scale(numbers, 16) * 32767 == pytest.approx(80.0)
    assert best_scale(numbers[:1], 8) == pytest.approx(40.0 / 127)
    assert best_scale(0.0 * numbers, 8) == 1.0


def test_clamped_numbers_are_counted(tmp_path: Path) -> None:
    made = model(tmp_path, layer(form="int8(per = channel)"), tokens=100)
    scales = calibrate(made.found.layer, made.values, made.x).scales
    narrow = replace(scales, x=float(np.sort(np.abs(made.x).ravel())[-49]) / 127.4)
    assert measure(made.found.layer, made.values, narrow, made.x, None).clamped_x == pytest.approx(48 / made.x.size)
    low = measure(made.found.layer, made.values, replace(scales, y=scales.y / 1e3), made.x, None)
    assert low.clamped_y > 0.4  # the rest are sums of clamped numbers of both signs


def test_experts_that_no_sample_chooses_are_calibrated_too(tmp_path: Path) -> None:
    made = model(tmp_path, layer(form="int8(per = channel)"), tokens=100)
    tensors = dict(made.tensors)
    tensors["router.logits.weight"] = np.zeros_like(tensors["router.logits.weight"])  # ties: experts 0 and 1
    values = gather(made.found.layer, made.found.interface, tensors)
    scales = calibrate(made.found.layer, values, made.x).scales
    assert max(scales.hidden) < 3 * min(scales.hidden)


def test_channels_of_zeros_keep_their_bias(tmp_path: Path) -> None:
    made = model(tmp_path, LAYERS["gelu"], tokens=100)
    tensors = dict(made.tensors)
    tensors["routed.down.weight"] = np.zeros_like(tensors["routed.down.weight"])
    values = gather(made.found.layer, made.found.interface, tensors)
    assert calibrate(made.found.layer, values, made.x).error.relative < 0.001


def test_other_samples_are_measured(tmp_path: Path) -> None:
    made = model(tmp_path, layer(form="int8(per = channel)"), tokens=100)
    found = calibrate(made.found.layer, made.values, made.x, None, (2.0 * made.x[:10], None))
    assert found.checked is not None
    assert found.checked.tokens == 10
    assert found.checked.relative > found.error.relative


def test_calibrations_are_written_and_read(tmp_path: Path) -> None:
    made = model(tmp_path, LAYERS["shared"])
    found = calibrate(made.found.layer, made.values, made.x)
    text = found.to_json().encode()
    assert read_calibration(text, made.found.layer, "file") == found
    for wrong, why in [
        (b"{", "file is not a calibration"),
        (text.replace(b'"L"', b'"M"'), "layer 'M'"),
        (text.replace(b'"schema": 1', b'"schema": 2'), "schema 2"),
        (text.replace(b'"x": 0', b'"x": -0'), "between"),
        (text.replace(b'"x": 0', b'"x": 1e999, "z": 0'), "not a known field"),
        (b" " * (1 << 25), "too large"),
    ]:
        with pytest.raises(CalibrationError, match=why):
            read_calibration(wrong, made.found.layer, "file")
    with pytest.raises(CalibrationError, match="7 routed"):
        read_calibration(text, replace(made.found.layer, experts=7), "file")


def test_samples_and_weights_that_are_none_are_refused(tmp_path: Path) -> None:
    made = model(tmp_path, LAYERS["tasks"])
    layer_, values = made.found.layer, made.values
    tasks = np.zeros(len(made.x), np.int64)
    for x, numbers, why in [
        (made.x[:0], tasks[:0], "at least one"),
        (made.x[:, :5], tasks, "rows of 48"),
        (np.full_like(made.x, np.nan), tasks, "not finite"),
        (made.x, None, "with a task"),
        (made.x, tasks + 3, "from 0 to 2"),
        (made.x, tasks[:4], "for each row"),
    ]:
        with pytest.raises(CalibrationError, match=why):
            calibrate(layer_, values, x, numbers)
    bad = {**made.tensors, "routed.up.weight": np.full_like(made.tensors["routed.up.weight"], np.inf)}
    with pytest.raises(WeightsError, match="not finite"):
        gather(layer_, made.found.interface, bad)
    given = model(tmp_path, LAYERS["given"])
    for name, value, why in [("routed.up.weight", -128, "outside of -127"), ("routed.up.scale", -1.0, "below 0")]:
        with pytest.raises(WeightsError, match=why):
            gather(given.found.layer, given.found.interface, {**given.tensors, name: given.tensors[name] * 0 + value})
