"""Which specialisations follow from a policy."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from moec.artifact.allowed import capacities, coldest, regimes
from moec.artifact.policy import Coldest, Policy
from moec.artifact.specialisation import Specialisation

COLD = Coldest("routed", 2, "int4", 32, "bf16")


def policy(**fields: object) -> Policy:
    given = {"layout": "L", "load": None, "triggers": (), "max_variants": 4, "tokens": (), "capacity": None}
    return Policy(**(given | {"quantise": (), "page": None} | fields))  # type: ignore[arg-type]


def test_regimes() -> None:
    few, many = regimes(policy(tokens=((1, 16), (17, 256))))
    assert few == Specialisation("tokens_1_16", (1, 16))
    assert many.name == "tokens_17_256"


@given(st.floats(0.01, 100), st.floats(1, 20))
def test_capacities_ascend_from_the_least_to_the_most(low: float, ratio: float) -> None:
    factors = [one.capacity for one in capacities(policy(capacity=(low, low * ratio)))]
    assert factors[0] == low
    assert factors[-1] == low * ratio
    assert factors == sorted(set(factors))
    for one in capacities(policy(capacity=(low, low * ratio))):
        assert Specialisation.from_json(one.to_json()) == one
    assert capacities(policy()) == ()


@given(st.lists(st.integers(0, 5), min_size=3, max_size=40))
def test_the_coldest_are_those_that_were_chosen_least(counts: list[int]) -> None:
    (made,) = coldest(policy(quantise=(COLD,)), counts)
    (cold,) = made.quantised
    assert len(cold.numbers) == 2
    assert max(counts[n] for n in cold.numbers) <= min(c for n, c in enumerate(counts) if n not in cold.numbers)
    assert Specialisation.from_json(made.to_json()) == made
