"""The cost model of token permutation says what one would expect of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from moec.passes import cost

MACHINE = cost.Machine()
OLMOE = cost.Traffic(experts=64, slots=8, expert_bytes=12_582_912, row_in_bytes=4096, row_out_bytes=8192)

traffics = st.builds(
    cost.Traffic,
    experts=st.integers(1, 1024),
    slots=st.integers(1, 16),
    expert_bytes=st.integers(1, 10**8),
    row_in_bytes=st.integers(1, 10**5),
    row_out_bytes=st.integers(1, 10**5),
)


def test_one_token_is_not_sorted_and_many_are() -> None:
    assert cost.direct_max_tokens(OLMOE, MACHINE) == 1


def test_a_million_tiny_experts_are_walked_for_many_tokens() -> None:
    peer = cost.Traffic(experts=1_000_000, slots=128, expert_bytes=8192, row_in_bytes=4096, row_out_bytes=8192)
    assert cost.direct_max_tokens(peer, MACHINE) > 16


@given(traffics, st.integers(0, 4096))
def test_gathering_never_costs_more_than_copying(traffic: cost.Traffic, tokens: int) -> None:
    assert cost.gather_seconds(traffic, tokens, MACHINE) <= cost.copy_seconds(traffic, tokens, MACHINE)


@given(traffics, st.integers(0, 4096))
def test_distinct_experts_lie_between_none_and_all(traffic: cost.Traffic, tokens: int) -> None:
    distinct = traffic.distinct(tokens)
    assert 0 <= distinct <= traffic.experts + 1e-9
    assert distinct <= tokens * traffic.slots + 1e-6
