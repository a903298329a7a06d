"""Test vectors: parameters and rows that every implementation is compared on, random ones and hostile ones."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from moec.fixed import arithmetic
from moec.fixed.limits import BIAS_BITS
from moec.fixed.parameters import Expert, Gate, Linear, Parameters
from moec.fixed.reference import forward
from moec.fixed.spec import Activation, Layer, Weights
from moec.fixed.spec import Expert as Shape
from moec.fixed.tables import activation_table

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Case:
    """A layer's parameters, rows [T, d], tasks [T] (None where there is one gate), and the result [T, d]."""

    name: str
    parameters: Parameters
    rows: Integers
    tasks: Integers | None
    result: Integers


def cases(layer: Layer, tokens: int, seed: int = 0, distinct: int | None = None) -> list[Case]:
    """Random values; all tokens to few experts; all logits equal; the largest codes and multipliers of every size.

    distinct  so many routed experts have numbers of their own, the others those of expert e modulo `distinct`
    """
    rng = np.random.default_rng(seed)
    plain = parameters(layer, rng, distinct)
    most = (1 << (layer.rows - 1)) - 1
    rows = rng.integers(-most, most, (tokens, layer.width), endpoint=True)
    tasks = rng.integers(0, layer.router.tasks, tokens) if layer.router.tasks > 1 else None
    signs = most * rng.choice([-1, 1], (tokens, layer.width))
    made = [
        ("random", plain, rows),
        ("crowded", replace(plain, gates=tuple(_crowded(layer, g) for g in plain.gates)), rows),
        ("ties", replace(plain, gates=tuple(_equal(g) for g in plain.gates)), rows),
        ("extreme", _extreme(layer, plain, rng, distinct), signs),
    ]
    return [Case(name, p, x, tasks, forward(layer, p, x, tasks)) for name, p, x in made]


def parameters(layer: Layer, rng: np.random.Generator, distinct: int | None = None) -> Parameters:
    """Random parameters under which few numbers are clamped; `distinct` as of `cases`."""
    gate_bits = 16 if layer.weights is Weights.FIXED16 else 8
    selection = 1 << (arithmetic.SCORE_FRACTION - 2)
    gates = tuple(
        Gate(
            _linear(
                layer, layer.experts, layer.width, gate_bits, 2.0**arithmetic.LOGIT_FRACTION, layer.router.bias, rng
            ),
            rng.integers(-selection, selection, layer.experts) if layer.router.selection else None,
        )
        for _ in range(layer.router.tasks)
    )
    shape = layer.routed
    table = None if shape.activation is Activation.RELU else activation_table(shape.activation, 2.0**-11)
    own = [_expert(layer, shape, rng) for _ in range(layer.experts)[:distinct]]
    experts = tuple(own[number % len(own)] for number in range(layer.experts))
    shared = tuple(_expert(layer, layer.common, rng) for _ in range(layer.shared)) if layer.common else ()
    return Parameters(gates, experts, shared, table, 2.0**-5, 2.0**-11)


def _linear(
    layer: Layer, outputs: int, inputs: int, bits: int, spread: float, bias: bool, rng: np.random.Generator
) -> Linear:
    """Results have about the standard deviation `spread` for rows that are spread evenly."""
    most = (1 << (bits - 1)) - 1
    codes = rng.integers(-most, most, (outputs, inputs), endpoint=True)
    usual = np.sqrt(inputs) * (2.0 ** (layer.rows - 1) / np.sqrt(3.0)) * max(codes.std(), 0.5)
    scales = [arithmetic.multiplier(spread / usual * f) for f in rng.uniform(0.5, 1.0, outputs)]
    factors = np.array(scales, np.int64).reshape(-1, 2)
    offsets = rng.normal(0.0, usual, outputs).astype(np.int64) if bias else np.zeros(outputs, np.int64)
    return Linear(codes, factors[:, 0], factors[:, 1], offsets)


def _expert(layer: Layer, shape: Shape, rng: np.random.Generator) -> Expert:
    bits = layer.weights.bits
    ways = [
        _linear(layer, shape.hidden, layer.width, bits, 2.0**12, shape.bias, rng)
        for _ in range(2 if shape.gated else 1)
    ]
    down = _linear(layer, layer.width, shape.hidden, bits, 2.0**12, shape.bias, rng)
    products = 2.0**25 if shape.gated else 2.0**13
    factor, shift = arithmetic.multiplier(2.0 ** (layer.rows - 1) / products)
    return Expert(ways[0] if shape.gated else None, ways[-1], down, factor, shift)


def _crowded(layer: Layer, gate: Gate) -> Gate:
    """The router's last K experts win by far, whatever the row is."""
    codes = gate.linear.codes // 8
    most = (1 << (BIAS_BITS[layer.weights] - 1)) // 4
    bias = np.where(np.arange(layer.experts) >= layer.experts - layer.router.slots, most, -most)
    selection = None if gate.selection is None else np.zeros_like(gate.selection)
    return Gate(replace(gate.linear, codes=codes, bias=bias), selection)


def _equal(gate: Gate) -> Gate:
    zeros = np.zeros_like(gate.linear.codes)
    selection = None if gate.selection is None else np.zeros_like(gate.selection)
    return Gate(replace(gate.linear, codes=zeros, bias=np.zeros_like(gate.linear.bias)), selection)


def _extreme(layer: Layer, plain: Parameters, rng: np.random.Generator, distinct: int | None) -> Parameters:
    def linear(old: Linear, bits: int) -> Linear:
        n = len(old.codes)
        factors = rng.choice([0, 1, 1 << 16, (1 << 17) - 1], n)
        low = -1 if layer.weights is Weights.TERNARY and bits == 2 else -(1 << (bits - 1))
        codes = rng.choice([low, (1 << (bits - 1)) - 1], old.codes.shape)
        bias = rng.choice([-1, 1], n) * ((1 << (BIAS_BITS[layer.weights] - 1)) - 1)
        return Linear(codes, factors, rng.integers(1, arithmetic.MOST_SHIFT, n, endpoint=True), bias)

    def expert(old: Expert) -> Expert:
        bits = layer.weights.bits
        gate = None if old.gate is None else linear(old.gate, bits)
        return Expert(gate, linear(old.up, bits), linear(old.down, bits), (1 << 17) - 1, int(rng.integers(1, 48)))

    gate_bits = 16 if layer.weights is Weights.FIXED16 else 8
    most = (1 << (arithmetic.LOGIT_BITS - 1)) - 1

    def gate(old: Gate) -> Gate:
        selection = None if old.selection is None else rng.integers(-most, most, layer.experts, endpoint=True)
        return Gate(linear(old.linear, gate_bits), selection)

    gates = tuple(gate(g) for g in plain.gates)
    own = [expert(e) for e in plain.experts[:distinct]]
    return replace(
        plain,
        gates=gates,
        experts=tuple(own[number % len(own)] for number in range(layer.experts)),
        shared=tuple(expert(e) for e in plain.shared),
    )
