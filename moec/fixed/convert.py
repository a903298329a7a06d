"""A layer's weights and scales to the numbers that hardware reads."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from moec.fixed import arithmetic, parameters, values
from moec.fixed.limits import BIAS_BITS
from moec.fixed.parameters import Gate, Parameters
from moec.fixed.scales import Scales
from moec.fixed.spec import Activation, Layer, Score
from moec.fixed.tables import activation_table
from moec.fixed.values import Linear, Values

Integers = NDArray[np.int64]
Reals = NDArray[np.float64]

_LONE_BIAS = 2.0**20
"""What a channel's bias becomes whose weights are all zero: its unit is then free."""


def convert(layer: Layer, values: Values, scales: Scales) -> Parameters:
    """Multipliers, shifts, biases and the table.  A bias beyond its bits is clamped."""
    unit = math.log(2.0) if layer.router.score is Score.SOFTMAX else 1.0
    logit = unit * 2.0**-arithmetic.LOGIT_FRACTION
    gates = tuple(Gate(_linear(layer, gate, scales.x, logit), _selection(values.selection)) for gate in values.gates)
    activation = layer.routed.activation
    return Parameters(
        gates=gates,
        experts=tuple(_expert(layer, e, scales, h) for e, h in zip(values.experts, scales.hidden, strict=True)),
        shared=tuple(_expert(layer, e, scales, h) for e, h in zip(values.shared, scales.common, strict=True)),
        activation=None if activation is Activation.RELU else activation_table(activation, scales.first),
        x_scale=scales.x,
        y_scale=scales.y,
    )


def rows_to_codes(layer: Layer, x: Reals, scale: float) -> Integers:
    """The input's codes: to the nearest, ties to even, clamped; NaN becomes 0."""
    return arithmetic.clamp(
        np.rint(np.nan_to_num(x / scale, nan=0.0, posinf=1e9, neginf=-1e9)).astype(np.int64), layer.rows
    )


def _selection(numbers: Reals | None) -> Integers | None:
    if numbers is None:
        return None
    return arithmetic.clamp(np.rint(numbers * 2.0**arithmetic.SCORE_FRACTION).astype(np.int64), arithmetic.LOGIT_BITS)


def _expert(layer: Layer, expert: values.Expert, scales: Scales, hidden: float) -> parameters.Expert:
    if expert.gate is None:
        first, gate = _linear(layer, expert.up, scales.x, scales.first), None
        product = scales.first
    else:
        second = scales.second or 1.0
        first, gate = (_linear(layer, expert.up, scales.x, second), _linear(layer, expert.gate, scales.x, scales.first))
        product = scales.first * second
    down = _linear(layer, expert.down, hidden, scales.y)
    return parameters.Expert(gate, first, down, *arithmetic.multiplier(product / hidden))


def _linear(layer: Layer, linear: Linear, before: float, after: float) -> parameters.Linear:
    """Of rows whose codes are worth `before`, to codes that are worth `after`."""
    most = (1 << (BIAS_BITS[layer.weights] - 1)) - 1
    lone = np.abs(linear.bias) / _LONE_BIAS
    scale = np.where(linear.codes.any(axis=1), before * linear.scale, np.where(lone > 0.0, lone, 1.0))
    factors = np.array([arithmetic.multiplier(float(one)) for one in scale / after], np.int64).reshape(-1, 2)
    bias = np.rint(np.clip(linear.bias / scale, -most, most)).astype(np.int64)
    return parameters.Linear(linear.codes, factors[:, 0], factors[:, 1], bias)
