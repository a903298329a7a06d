"""The cost model of token permutation says what one would expect of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from moec.passes import cost

MACHINE = cost.Machine()
OLMOE = cost.Traffic(experts=64, slots=8, row_in_bytes=4096, row_out_bytes=8192)

traffics = st.builds(
    cost.Traffic,
    experts=st.integers(1, 1024),
    slots=st.integers(1, 16),
    row_in_bytes=st.integers(1, 10**5),
    row_out_bytes=st.integers(1, 10**5),
)


def test_one_token_is_inserted_and_many_are_counted() -> None:
    assert 1 <= cost.direct_max_tokens(OLMOE, MACHINE) < 8


def test_a_million_tiny_experts_are_not_counted_for_a_few_tokens() -> None:
    peer = cost.Traffic(experts=1_000_000, slots=128, row_in_bytes=4096, row_out_bytes=8192)
    assert cost.direct_max_tokens(peer, MACHINE) >= 8


@given(traffics, st.integers(0, 4096))
def test_gathering_never_costs_more_than_copying(traffic: cost.Traffic, tokens: int) -> None:
    assert cost.gather_seconds(traffic, tokens, MACHINE) <= cost.copy_seconds(traffic, tokens, MACHINE)
