"""How often tokens visit sets of experts, against every set of experts that a token could choose."""

from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moec.artifact.traffic import Zipf
from moec.schedule.routing import Choices


@pytest.mark.parametrize(("experts", "slots", "group"), [(64, 8, 16), (8, 2, 1), (6, 1, 3), (5, 4, 2), (4, 4, 2)])
def test_equal_shares_are_drawing_without_replacement(experts: int, slots: int, group: int) -> None:
    groups = np.arange(experts) // group
    count = int(groups.max()) + 1
    sizes = np.bincount(groups)
    expected = [1 - comb(experts - int(size), slots) / comb(experts, slots) for size in sizes]
    np.testing.assert_allclose(Choices((1 / experts,) * experts, slots).visited(groups, count), expected, rtol=1e-9)


@given(st.floats(0.0, 2.0), st.integers(1, 4), st.lists(st.integers(-1, 3), min_size=7, max_size=7))
def test_any_shares_are_the_sum_over_all_sets(exponent: float, slots: int, groups: list[int]) -> None:
    choices = Choices(Zipf(exponent).shares(7, slots), slots)
    weights = choices._weights
    certain = [e for e in range(7) if np.isinf(weights[e])]
    finite = np.where(np.isinf(weights), 1.0, weights)
    sets = [s for s in combinations(range(7), slots) if set(certain) <= set(s)]
    odds = np.array([np.prod(finite[list(s)]) for s in sets])
    odds /= odds.sum()
    included = [sum(o for o, s in zip(odds, sets, strict=True) if e in s) for e in range(7)]
    np.testing.assert_allclose(included, choices.included, atol=1e-5)
    visits = [sum(o for o, s in zip(odds, sets, strict=True) if any(groups[e] == g for e in s)) for g in range(4)]
    np.testing.assert_allclose(choices.visited(np.array(groups), 4), visits, atol=1e-5)


def test_thousands_of_experts() -> None:
    choices = Choices(Zipf(1.2).shares(4096, 8), 8)
    visits = choices.visited(np.arange(4096) // 2, 2048)
    assert 1.0 <= visits.sum() <= 8.0
    assert (np.diff(visits) <= 1e-9).all()
