"""A layer in float64: what its arithmetic on integers stands for, with all that lies between seen by an observer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moec.fixed.spec import Activation, Layer, Router, Score
from moec.fixed.values import Expert, Linear, Values

Integers = NDArray[np.int64]
Reals = NDArray[np.float64]

Observer = Callable[[str, int, Reals], None]
"""Called with what a number is (`first`, `second`, `hidden`, `result`), whose it is (shared experts count on behind the
routed ones), and the numbers of all its rows."""


@dataclass(frozen=True)
class Result:
    """The layer's result [T, d], and each token's experts [T, K], best first."""

    y: Reals
    experts: Integers


def _nobody(what: str, expert: int, rows: Reals) -> None:
    """The observer that does not look."""


def forward(layer: Layer, values: Values, x: Reals, tasks: Integers | None, observe: Observer = _nobody) -> Result:
    """The layer on rows x [T, d]; `tasks` [T] is None where there is one gate."""
    chosen = np.zeros((len(x), layer.router.slots), np.int64)
    weights = np.zeros(chosen.shape)
    numbers = np.zeros(len(x), np.int64) if tasks is None else tasks
    for number, gate in enumerate(values.gates):
        mine = numbers == number
        chosen[mine], weights[mine] = route(layer.router, gate, values.selection, x[mine])
    y = np.zeros((len(x), layer.width))
    for number, expert in enumerate(values.experts):
        token, slot = np.nonzero(chosen == number)
        given = apply(layer.routed.activation, expert, x[token], number, observe)
        y[token] += given * weights[token, slot][:, None]
    for number, expert in enumerate(values.shared):
        y += apply(layer.routed.activation, expert, x, layer.experts + number, observe)
    return Result(y, chosen)


def route(router: Router, gate: Linear, selection: Reals | None, x: Reals) -> tuple[Integers, Reals]:
    """Each row's experts, best first, and their weights; [T, K] both."""
    logits = project(gate, x)
    scores = _scores(router, logits)
    keys = scores if selection is None else scores + selection
    experts = np.argsort(-keys, axis=1, kind="stable")[:, : router.slots]
    if router.over == "chosen":
        shares = _scores(router, np.take_along_axis(logits, experts, axis=1))
    else:
        shares = np.take_along_axis(scores, experts, axis=1)
    if router.renorm:
        shares = shares / shares.sum(axis=1, keepdims=True)
    return experts, shares * router.scale


def apply(activation: Activation, expert: Expert, x: Reals, number: int, observe: Observer) -> Reals:
    """An expert's results for rows x."""
    first = project(expert.up if expert.gate is None else expert.gate, x)
    observe("first", number, first)
    hidden = _activate(activation, first)
    if expert.gate is not None:
        second = project(expert.up, x)
        observe("second", number, second)
        hidden = hidden * second
    observe("hidden", number, hidden)
    result = project(expert.down, hidden)
    observe("result", number, result)
    return result


def project(linear: Linear, x: Reals) -> Reals:
    """weight @ row + bias for each row."""
    return x @ linear.weight.T + linear.bias


def _scores(router: Router, logits: Reals) -> Reals:
    if router.score is Score.SIGMOID:
        return _sigmoid(logits)
    if router.score is Score.IDENTITY:
        return logits
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _sigmoid(x: Reals) -> Reals:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * x)))


def _activate(activation: Activation, x: Reals) -> Reals:
    if activation is Activation.RELU:
        return np.maximum(x, 0.0)
    if activation is Activation.SILU:
        return x * _sigmoid(x)
    return 0.5 * x * (1.0 + _erf(x / np.sqrt(2.0)))


def _erf(x: Reals) -> Reals:
    from math import erf

    return np.array([erf(one) for one in x.ravel().tolist()]).reshape(x.shape)
