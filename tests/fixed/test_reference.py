"""The reference against the definition written anew on Python's integers, one token and one number at a time."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from moec.fixed import limits, reference
from moec.fixed.parameters import Expert, Gate, Linear, Parameters
from moec.fixed.spec import Layer, Score
from moec.fixed.tables import exp2_table, sigmoid_table
from moec.fixed.vectors import cases
from tests.fixed.examples import gelu
from tests.fixed.layers import layers


def halves_up(value: int, shift: int) -> int:
    return (value + (1 << (shift - 1))) >> shift


def within(value: int, bits: int) -> int:
    return max(-(1 << (bits - 1)) + 1, min((1 << (bits - 1)) - 1, value))


def linear(it: Linear, row: list[int], bits: int, accumulator: int) -> list[int]:
    result = []
    for o, codes in enumerate(it.codes.tolist()):
        total = int(it.bias[o])
        for x, w in zip(row, codes, strict=True):
            total += x * w
            assert -(1 << (accumulator - 1)) <= total < 1 << (accumulator - 1)
        result.append(within(halves_up(total * int(it.multiplier[o]), int(it.shift[o])), bits))
    return result


def expert(layer: Layer, p: Parameters, it: Expert, row: list[int]) -> list[int]:
    accumulator = limits.ACCUMULATOR_BITS[layer.weights]
    first = linear(it.up if it.gate is None else it.gate, row, 16, accumulator)
    second = None if it.gate is None else linear(it.up, row, 16, accumulator)
    codes = []
    for i, r in enumerate(first):
        a = max(r, 0)
        if p.activation is not None:
            at, part = abs(r) >> 6, abs(r) & 63
            a -= halves_up((int(p.activation.base[at]) << 6) + int(p.activation.step[at]) * part, 8)
        product = a if second is None else a * second[i]
        codes.append(within(halves_up(product * it.multiplier, it.shift), layer.rows))
    return linear(it.down, codes, 16, accumulator)


def power(logit: int) -> tuple[int, int]:
    table, fraction = exp2_table(), logit & 0xFFFF
    at, part = fraction >> 7, fraction & 127
    read = halves_up((int(table.base[at]) << 7) + int(table.step[at]) * part, 9)
    return logit >> 16, (65536 + read) << 9


def sigmoid(logit: int) -> int:
    table, size = sigmoid_table(), min(abs(logit), (1 << 20) - 1)
    at, part = size >> 11, size & 2047
    read = halves_up((int(table.base[at]) << 11) + int(table.step[at]) * part, 13)
    return 65536 - read if logit >= 0 else read


def share(part: int, whole: int) -> int:
    return ((part << 16) + (whole >> 1)) // whole if whole else 0


def route(layer: Layer, gate: Gate, row: list[int]) -> dict[int, int]:
    router = layer.router
    logits = linear(gate.linear, row, 24, limits.ACCUMULATOR_BITS[layer.weights])
    scores = [sigmoid(t) for t in logits] if router.score is Score.SIGMOID else logits
    keys = logits if gate.selection is None else [s + int(b) for s, b in zip(scores, gate.selection, strict=True)]
    chosen = sorted(range(layer.experts), key=lambda e: (-keys[e], e))[: router.slots]
    if router.score is Score.SOFTMAX:
        if router.renorm or router.over == "chosen":
            most = power(logits[chosen[0]])[0]
            total = sum(power(logits[e])[1] >> (most - power(logits[e])[0]) for e in chosen)
        else:
            most, total = power(logits[0])
            for t in logits[1:]:
                n, p = power(t)
                if n > most:
                    total >>= n - most
                    most = n
                total += p >> (most - n)
        shares = [share(power(logits[e])[1] >> (most - power(logits[e])[0]), total) for e in chosen]
    else:
        shares = [scores[e] for e in chosen]
        if router.renorm:
            shares = [share(s, sum(shares)) for s in shares]
    scale = router.scale * 2.0 ** (fraction(layer) - 16)
    shift = 16 - math.floor(math.log2(scale))
    return {e: within(halves_up(s * round(scale * 2.0**shift), shift), 18) for e, s in zip(chosen, shares, strict=True)}


def fraction(layer: Layer) -> int:
    most = 13 if layer.router.score is Score.IDENTITY else 16
    return most - max(0, math.ceil(math.log2(layer.router.scale)))


def token(layer: Layer, p: Parameters, row: list[int], task: int) -> list[int]:
    total = [0] * layer.width
    for e, weight in route(layer, p.gates[task], row).items():
        total = [t + v * weight for t, v in zip(total, expert(layer, p, p.experts[e], row), strict=True)]
    for it in p.shared:
        total = [t + (v << fraction(layer)) for t, v in zip(total, expert(layer, p, it, row), strict=True)]
    assert all(abs(t) < 1 << 47 for t in total)
    return [within(halves_up(t, fraction(layer)), 16) for t in total]


@settings(max_examples=60)
@given(layers(), st.integers(0, 6), st.integers(0, 1000))
def test_the_reference_is_the_definition(layer: Layer, tokens: int, seed: int) -> None:
    assert limits.reasons(layer) == []
    for case in cases(layer, tokens, seed):
        tasks = [0] * tokens if case.tasks is None else case.tasks.tolist()
        rows = [token(layer, case.parameters, r, t) for r, t in zip(case.rows.tolist(), tasks, strict=True)]
        assert case.result.tolist() == rows


@settings(max_examples=30)
@given(layers(), st.integers(0, 1000))
def test_a_token_gives_the_same_bits_in_any_batch(layer: Layer, seed: int) -> None:
    for case in cases(layer, 5, seed):
        tasks = None if case.tasks is None else case.tasks[3:4]
        alone = reference.forward(layer, case.parameters, case.rows[3:4], tasks)
        assert alone.tolist() == case.result[3:4].tolist()


def test_crowded_cases_use_few_experts_and_ties_the_lowest_numbers() -> None:
    made = {case.name: case for case in cases(gelu, 20)}
    rows = made["random"].rows
    crowded = reference.routing(gelu, made["crowded"].parameters, rows, None)
    ties = reference.routing(gelu, made["ties"].parameters, rows, None)
    assert set(crowded.experts.ravel().tolist()) == {4, 5}
    assert ties.experts.tolist() == [[0, 1]] * 20
    assert np.ptp(ties.weights) <= 1
