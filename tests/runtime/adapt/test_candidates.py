"""What is proposed for a load, and what it is said to gain."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moec.artifact.allowed import capacities
from moec.artifact.manifest import Statistic
from moec.artifact.policy import Coldest, Policy
from moec.runtime.adapt.candidates import Candidates, overflow
from moec.runtime.adapt.statistics import LoadStatistics, Snapshot
from tests.artifact.samples import manifest

E = 8
COLD = Coldest("routed", 4, "int4", 32, "bf16")
SHARES = st.lists(st.floats(0, 1), min_size=E, max_size=E).map(np.array).filter(lambda a: a.sum() > 0.01)


def load(chosen: list[int], tokens: int, kept: list[int] | None = None) -> Snapshot:
    statistics = LoadStatistics(E, 2, capacity=kept is not None)
    row = statistics.take(tokens)
    assert row is not None
    for tensor, counts in zip(row.tensors, (chosen, kept), strict=False):
        tensor[:] = tensor.new_tensor(counts)
    statistics.give(row, tokens, 0)
    return statistics.snapshot()


def test_the_ranges_whose_code_would_be_another() -> None:
    policy = Policy("L", tokens=((1, 4), (5, 16), (17, 512)))
    candidates = Candidates(policy, 2, 16, gain=lambda most: 1.2 if most <= 16 else 1.0)
    first, second = candidates.propose(load([1000] * E, 4000), [])
    assert [one.specialisation.tokens for one in (first, second)] == [(1, 4), (5, 16)]
    assert first.specialisation.exact
    assert first.gain == 1.2
    assert candidates.propose(load([2] * E, 8), [first.specialisation]) == [second]
    assert Candidates(policy, 2, 16).propose(load([2] * E, 8), []) == []


def test_few_tokens_gain_where_panels_do_not_lie_side_by_side_anyway() -> None:
    layer = replace(manifest(), statistics=(Statistic("chosen", "routed", 2, (E,)),))
    policy, calls = Policy("L", tokens=((1, 4), (9, 64))), load([2] * E, 8)
    (found,) = Candidates.of(policy, layer, "avx512_bf16").propose(calls, [])
    assert found.specialisation.tokens == (1, 4)
    assert Candidates.of(policy, layer, "avx2").propose(calls, []) == []


def test_a_capacity_that_keeps_the_choices() -> None:
    candidates = Candidates(Policy("L", capacity=(1.0, 4.0)), 2, 16)
    (found,) = candidates.propose(load([400, *[60] * 7], 410, [103, *[60] * 7]), [])
    assert found.specialisation.capacity == 4.0
    assert not found.specialisation.exact
    assert found.gain == pytest.approx((1 - overflow(np.array([400, *[60] * 7]) / 820, 4.0)) / (523 / 820))


@given(SHARES)
def test_the_least_capacity_that_will_do(weights: np.ndarray) -> None:
    chosen = [round(1000 * weight) + 1 for weight in weights]
    shares = np.array(chosen) / sum(chosen)
    policy = Policy("L", capacity=(1.0, 4.0))
    (found,) = Candidates(policy, 2, 16).propose(load(chosen, sum(chosen) // 2), [])
    factor = found.specialisation.capacity
    assert factor is not None
    assert overflow(shares, factor) <= 0.01 or factor == 4.0
    smaller = [one.capacity for one in capacities(policy) if one.capacity is not None and one.capacity < factor]
    assert all(overflow(shares, other) > 0.01 for other in smaller)


def test_the_coldest_and_what_they_gain() -> None:
    candidates = Candidates(Policy("L", quantise=(COLD,)), 2, 16)
    chosen = [50, 1, 40, 1, 30, 1, 60, 1]
    (few,) = candidates.propose(load(chosen, 1), [])
    (quantised,) = few.specialisation.quantised
    assert quantised.numbers == (1, 3, 5, 7)
    assert (quantised.format, quantised.group, quantised.scale) == ("int4", 32, "bf16")
    assert 1 < few.gain < 1.1  # they are hardly ever read
    (even,) = candidates.propose(load([1] * E, 1), [])
    assert even.gain == pytest.approx(1 / (0.5 + 0.5 * 4.5 / 16), rel=1e-6)
    (many,) = candidates.propose(load([9000] * E, 36000), [])
    assert many.gain == pytest.approx(1)  # multiplying takes as long as before


def test_cold_experts_are_chosen_anew_only_when_they_are_no_longer_cold() -> None:
    candidates = Candidates(Policy("L", quantise=(COLD,)), 2, 16)
    (found,) = candidates.propose(load([50, 1, 40, 1, 30, 1, 60, 1], 1), [])
    running = [found.specialisation]
    assert candidates.propose(load([50, 2, 40, 1, 30, 3, 60, 2], 1), running) == []
    (other,) = candidates.propose(load([1, 50, 1, 40, 1, 30, 1, 60], 1), running)
    assert other.specialisation.quantised[0].numbers == (0, 2, 4, 6)
    assert other.specialisation.name != found.specialisation.name


def test_nothing_is_proposed_without_a_load() -> None:
    policy = Policy("L", tokens=((1, 16),), capacity=(1.0, 2.0), quantise=(COLD,))
    assert Candidates(policy, 2, 16).propose(LoadStatistics(E, 2, capacity=True).snapshot(), []) == []
