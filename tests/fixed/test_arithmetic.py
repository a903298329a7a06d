"""The functions of fixed-point arithmetic against exact fractions and real functions."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moec.fixed import arithmetic, limits
from moec.fixed.spec import Activation, Router, Score, Weights
from moec.fixed.tables import activation_table, delta, exp2_table, sigmoid_table

most_accumulator = (1 << 45) - 1


def router(score: Score, scale: float) -> Router:
    return Router(score, "all", False, False, 1, False, scale, 1)


@given(
    st.integers(-most_accumulator, most_accumulator),
    st.integers(0, (1 << 17) - 1),
    st.integers(1, 47),
    st.sampled_from([8, 16, 24]),
)
def test_requantising_rounds_halves_up_and_clamps(value: int, factor: int, shift: int, bits: int) -> None:
    exact = math.floor(Fraction(value * factor, 1 << shift) + Fraction(1, 2))
    most = (1 << (bits - 1)) - 1
    got = arithmetic.requantise(np.array([value]), np.array([factor]), np.array([shift]), bits)
    assert got.tolist() == [max(-most, min(most, exact))]


@given(st.floats(2.0**-30, 65535.0))
def test_multipliers_are_within_a_part_in_131072(real: float) -> None:
    mantissa, shift = arithmetic.multiplier(real)
    assert 1 << 16 <= mantissa < 1 << 17
    assert 1 <= shift <= 47
    assert abs(Fraction(mantissa, 1 << shift) / Fraction(real) - 1) <= Fraction(1, 1 << 17)


@pytest.mark.parametrize(
    ("real", "expected"),
    [(0.0, (0, 1)), (1.0, (1 << 16, 16)), (1e9, ((1 << 17) - 1, 1)), (65535.9, ((1 << 17) - 1, 1)), (1e-30, (0, 47))],
)
def test_multipliers_at_their_ends(real: float, expected: tuple[int, int]) -> None:
    assert arithmetic.multiplier(real) == expected


@pytest.mark.parametrize("activation", [Activation.GELU, Activation.SILU])
@pytest.mark.parametrize("scale", [2.0**-8, 2.0**-11, 2.0**-12, 2.0**-15, 0.00037, 0.01])
def test_activations_keep_the_bound_for_all_arguments(activation: Activation, scale: float) -> None:
    codes = np.arange(-32767, 32768)
    real = [max(x, 0.0) - delta(activation, abs(x)) for x in codes * scale]
    got = arithmetic.activate(codes, activation_table(activation, scale))
    assert np.abs(got - np.array(real) / scale).max() <= 0.75 + 410 * scale
    assert np.abs(got).max() <= 32767


def test_delta_is_what_lies_between_relu_and_the_activations() -> None:
    for x in (0.0, 0.3, 1.0, 5.0, 700.5):
        gelu = 0.5 * -x * (1.0 + math.erf(-x / math.sqrt(2.0)))
        assert delta(Activation.GELU, x) == pytest.approx(-gelu, abs=1e-15)
        assert delta(Activation.SILU, x) == pytest.approx(x / (1.0 + math.exp(x)) if x < 700 else 0.0, abs=1e-15)
        assert delta(Activation.RELU, x) == 0.0


def test_powers_and_sigmoid_keep_their_bounds_for_all_arguments() -> None:
    fractions = np.arange(1 << 16)
    whole, part = arithmetic.powers(fractions - (3 << 16))
    assert set(whole.tolist()) == {-3}
    assert np.abs(part / 2.0**9 - 2.0**16 * np.exp2(fractions / 2.0**16)).max() <= 0.8
    assert part.min() >= 1 << 25
    assert part.max() < 1 << 26
    logits = np.arange(-(1 << 23) + 1, 1 << 23, 3)
    got = arithmetic.sigmoid(logits)
    real = 2.0**16 / (1.0 + np.exp(-logits / 2.0**16))
    assert np.abs(got - real).max() <= 1.6
    assert got.min() >= 0
    assert got.max() <= 1 << 16


def test_entries_of_tables_fit_their_bits() -> None:
    tables = [exp2_table(), sigmoid_table(), activation_table(Activation.SILU, 2.0**-15)]
    for table in tables:
        assert table.base.min() >= 0
        assert table.base.max() < 1 << 18
        assert np.abs(table.step).max() < 1 << 17
        words = [int(w) for w in table.words()]
        assert [w & 0x3FFFF for w in words] == table.base.tolist()
        signed = [(w >> 18) - (1 << 18) * (w >> 35) for w in words]
        assert signed == table.step.tolist()


@given(st.lists(st.floats(-100.0, 100.0), min_size=1, max_size=40))
def test_the_sum_of_a_softmax_is_near_the_real_one_in_any_order(values: list[float]) -> None:
    logits = np.array([[round(v * 65536) for v in values]])
    total = int(arithmetic.softmax_sum(logits)[0])
    exact = sum(2.0 ** (v / 65536 - math.floor(logits.max() / 65536)) for v in logits[0].tolist())
    assert total / 2.0**25 == pytest.approx(exact, rel=2.0**-15)


@given(st.integers(0, 1 << 34), st.integers(0, 1 << 34))
def test_division_rounds_halves_up(a: int, b: int) -> None:
    part, whole = min(a, b), max(a, b)
    exact = math.floor(Fraction(part << 16, whole) + Fraction(1, 2)) if whole else 0
    assert arithmetic.divide(np.array([part]), np.array([whole])).tolist() == [exact]


def test_weights_of_experts_fit_their_bits_whatever_the_scale() -> None:
    for scale in (0.1, 1.0, 1.5, 2.0, 2.5, 16.0, 4096.0):
        kind = router(Score.SOFTMAX, scale)
        factor, shift = arithmetic.gate_multiplier(kind)
        largest = arithmetic.requantise(np.array([1 << 16]), factor, shift, 40)
        assert int(largest[0]) <= (1 << 17) - 1
        assert int(largest[0]) == round(scale * 2 ** arithmetic.gate_fraction(kind))
    assert arithmetic.gate_multiplier(router(Score.SIGMOID, 1.0)) == (1 << 16, 16)


@pytest.mark.parametrize("weights", list(Weights))
def test_accumulators_hold_the_longest_sums(weights: Weights) -> None:
    rows, codes = (32767, 32768) if weights is Weights.FIXED16 else (127, 128)
    bias = (1 << (limits.BIAS_BITS[weights] - 1)) - 1
    most = (1 << (limits.ACCUMULATOR_BITS[weights] - 1)) - 1
    length = limits.longest(weights)
    assert bias + length * rows * codes <= most < bias + (length + 1) * rows * codes
    assert most * ((1 << 17) - 1) + (1 << 46) < 1 << 63  # what `requantise` computes in 64 bits
