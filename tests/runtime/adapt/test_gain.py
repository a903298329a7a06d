"""What a variant should save against what it costs."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moec.runtime.adapt.gain import Cost, Spent, estimate


def test_much_traffic_is_worth_it_and_little_is_not() -> None:
    often = estimate(1.5, 1.05, calls_per_second=100, seconds_per_call=1e-3, lasted=60, cost=1.0)
    assert often.worthwhile
    assert often.saved == pytest.approx(often.expected_calls * 1e-3 / 3)
    assert "saves 8.0 s, more than" in often.why
    rarely = estimate(1.5, 1.05, calls_per_second=0.1, seconds_per_call=1e-3, lasted=60, cost=1.0)
    assert not rarely.worthwhile
    assert "no more than" in rarely.why


def test_the_policy_says_how_much_is_enough() -> None:
    small = estimate(1.04, 1.05, calls_per_second=1e6, seconds_per_call=1.0, lasted=1e6, cost=1.0)
    assert not small.worthwhile
    assert small.why == "predicted gain 1.04x is below the policy's 1.05x"


Positive = st.floats(0.0, 1e6)


@given(st.floats(0.01, 100.0), Positive, Positive, Positive, st.floats(0.001, 1e3))
def test_it_is_sound(gain: float, rate: float, each: float, lasted: float, cost: float) -> None:
    made = estimate(gain, 1.0, rate, each, lasted, cost)
    assert math.isfinite(made.saved)
    assert made.worthwhile <= (made.saved > cost)
    if gain <= 1:
        assert not made.worthwhile
    assert estimate(gain, 1.0, rate, each, lasted, 2 * cost).worthwhile <= made.worthwhile
    assert estimate(gain * 2, 1.0, rate, each, lasted, cost).saved >= made.saved


def test_the_cost_is_learned() -> None:
    cost = Cost()
    assert cost.seconds(there=True) < cost.seconds(there=False)
    for _ in range(20):
        cost.learn(Spent(4.0, 0.5))
    assert cost.seconds(there=False) == pytest.approx(4.5, rel=1e-3)
    assert cost.seconds(there=True) == pytest.approx(0.5, rel=1e-3)
    for _ in range(20):
        cost.learn(Spent(None, 0.1))
    assert cost.seconds(there=False) == pytest.approx(4.1, rel=1e-3), "what was there says nothing of compiling"
