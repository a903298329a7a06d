"""What a fixed-point layer gives, in integers: the definition that generated C++ and RTL are compared with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moec.fixed import arithmetic
from moec.fixed.parameters import Expert, Gate, Linear, Parameters
from moec.fixed.spec import Layer, Router, Score
from moec.fixed.tables import Table

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Routing:
    """Each token's experts, the largest key first, and their weights with `gate_fraction` bits; int64 [T, K] both."""

    experts: Integers
    weights: Integers


def accumulate(linear: Linear, rows: Integers) -> Integers:
    """bias + codes @ row for each of the rows [T, K]; float64 holds all of these sums exactly."""
    sums = rows.astype(np.float64) @ linear.codes.T.astype(np.float64)
    return sums.astype(np.int64) + linear.bias


def project(linear: Linear, rows: Integers, bits: int) -> Integers:
    """The linear of the rows [T, K] as numbers of `bits` bits, [T, N]."""
    return arithmetic.requantise(accumulate(linear, rows), linear.multiplier, linear.shift, bits)


def hidden(layer: Layer, expert: Expert, table: Table | None, rows: Integers) -> Integers:
    """The codes between an expert's linears, [T, hidden]."""
    first = expert.up if expert.gate is None else expert.gate
    values = arithmetic.activate(project(first, rows, arithmetic.WIDE), table)
    if expert.gate is not None:
        values = values * project(expert.up, rows, arithmetic.WIDE)
    return arithmetic.requantise(values, expert.multiplier, expert.shift, layer.rows)


def apply(layer: Layer, expert: Expert, table: Table | None, rows: Integers) -> Integers:
    """An expert's results for the rows, 16 bits, [T, d]."""
    return project(expert.down, hidden(layer, expert, table, rows), arithmetic.WIDE)


def choose(keys: Integers, slots: int) -> Integers:
    """The numbers of the largest keys of each row [T, E], the largest first, ties to the lower number; [T, slots]."""
    return np.argsort(-keys, axis=1, kind="stable")[:, :slots]


def route(router: Router, gate: Gate, rows: Integers) -> Routing:
    """The experts of each row and their weights, by one gate."""
    return decide(router, gate, project(gate.linear, rows, arithmetic.LOGIT_BITS))


def decide(router: Router, gate: Gate, logits: Integers) -> Routing:
    """The experts and their weights by logits [T, E]."""
    scores = arithmetic.sigmoid(logits) if router.score is Score.SIGMOID else logits
    keys = logits if gate.selection is None else scores + gate.selection
    experts = choose(keys, router.slots)
    if router.score is Score.SOFTMAX:
        shares = _softmax(router, logits, experts)
    else:
        shares = np.take_along_axis(scores, experts, axis=1)
        if router.renorm:
            shares = arithmetic.divide(shares, shares.sum(axis=1, keepdims=True))
    factor, shift = arithmetic.gate_multiplier(router)
    return Routing(experts, arithmetic.requantise(shares, factor, shift, arithmetic.GATE_BITS))


def _softmax(router: Router, logits: Integers, experts: Integers) -> Integers:
    whole, part = arithmetic.powers(np.take_along_axis(logits, experts, axis=1))
    parts = arithmetic.shifted(part, whole[:, :1] - whole)
    if router.renorm or router.over == "chosen":
        return arithmetic.divide(parts, parts.sum(axis=1, keepdims=True))
    return arithmetic.divide(parts, arithmetic.softmax_sum(logits)[:, None])


def routing(layer: Layer, parameters: Parameters, rows: Integers, tasks: Integers | None) -> Routing:
    """The experts of each row, by the gate of its task (0 where `tasks` is None)."""
    chosen = np.zeros((len(rows), layer.router.slots), np.int64)
    weights = chosen.copy()
    numbers = np.zeros(len(rows), np.int64) if tasks is None else tasks
    for number, gate in enumerate(parameters.gates):
        mine = numbers == number
        found = route(layer.router, gate, rows[mine])
        chosen[mine], weights[mine] = found.experts, found.weights
    return Routing(chosen, weights)


def forward(layer: Layer, parameters: Parameters, rows: Integers, tasks: Integers | None = None) -> Integers:
    """The layer's result.

    rows    int64 [T, d], codes of the input
    tasks   int64 [T], 0 to router.tasks - 1; None where there is one gate
    Returns int64 [T, d], 16-bit codes.
    """
    found = routing(layer, parameters, rows, tasks)
    fraction = arithmetic.gate_fraction(layer.router)
    total = np.zeros((len(rows), layer.width), np.int64)
    for number, expert in enumerate(parameters.experts):
        token, slot = np.nonzero(found.experts == number)
        results = apply(layer, expert, parameters.activation, rows[token])
        total[token] += results * found.weights[token, slot][:, None]
    for expert in parameters.shared:
        total += apply(layer, expert, parameters.activation, rows) << fraction
    return arithmetic.clamp(arithmetic.rounded(total, fraction), arithmetic.WIDE)
