"""Verdicts on builds that take turns."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from moec.runtime.adapt.canary import Canary, Meter


def calls(meter: Meter, tokens: int, nanoseconds: int, count: int = 50) -> None:
    for _ in range(count):
        meter.seen([torch.empty(tokens, 1)], nanoseconds)


def test_the_faster_one_stays() -> None:
    for new, kept in ((500, True), (960, True), (990, False), (2000, False)):
        canary = Canary(0.0, asked=1.05)
        calls(canary.old, 4, 1000)
        calls(canary.new, 4, new)
        verdict = canary.verdict(1.0)
        assert verdict is not None
        assert verdict.kept == kept
        assert verdict.gain == 1000 / new


def test_it_waits_for_enough_calls_but_not_for_ever() -> None:
    canary = Canary(100.0, asked=1.0, enough=40, longest=60.0)
    calls(canary.old, 4, 1000, 10)
    calls(canary.new, 4, 900, 10)
    assert canary.verdict(159.0) is None
    verdict = canary.verdict(160.0)
    assert verdict is not None
    assert verdict.calls == 7, "the first ones are cold and do not count"


def test_short_calls_are_tried_for_a_while() -> None:
    """The first thousand find the new build's weights in no cache; the last ones decide."""
    canary = Canary(100.0, asked=1.0)
    calls(canary.old, 4, 1000, 1000)
    calls(canary.new, 4, 1500, 1000)
    assert canary.verdict(100.5) is None
    calls(canary.new, 4, 900, 1000)
    verdict = canary.verdict(101.0)
    assert verdict is not None
    assert verdict.gain == 1000 / 900


def test_what_is_much_slower_is_found_out_early() -> None:
    for new, early in ((2500, True), (1500, False)):
        canary = Canary(0.0, asked=1.0)
        calls(canary.old, 4, 1000, 11)
        calls(canary.new, 4, new, 11)
        verdict = canary.verdict(1.0)
        assert (verdict is not None and not verdict.kept) == early


def test_nobody_called() -> None:
    canary = Canary(0.0, asked=2.0, longest=60.0)
    assert canary.verdict(59.0) is None
    verdict = canary.verdict(60.0)
    assert verdict is not None
    assert verdict.kept


def test_only_calls_of_like_size_are_compared() -> None:
    """The old one has had the large calls, the new one the small ones: that says nothing."""
    canary = Canary(0.0, asked=1.0)
    calls(canary.old, 1000, 10**6)
    calls(canary.new, 1, 10)
    assert canary.verdict(1.0) is None
    calls(canary.old, 1, 5)
    verdict = canary.verdict(1.0)
    assert verdict is not None
    assert verdict.gain == 0.5
    assert not verdict.kept


def test_more_work_may_take_longer() -> None:
    canary = Canary(0.0, asked=1.05, work=1.4)
    calls(canary.old, 4, 1000)
    calls(canary.new, 4, 1400)
    verdict = canary.verdict(1.0)
    assert verdict is not None
    assert verdict.kept
    canary = Canary(0.0, asked=1.05, work=1.4)
    calls(canary.old, 4, 1000)
    calls(canary.new, 4, 2000)
    verdict = canary.verdict(1.0)
    assert verdict is not None
    assert not verdict.kept


@given(st.lists(st.tuples(st.integers(1, 4096), st.integers(1, 10**9)), min_size=1, max_size=30), st.floats(0.1, 10))
def test_outliers_do_not_decide(sizes: list[tuple[int, int]], factor: float) -> None:
    """A few calls during which the machine did something else leave medians, and so the verdict, as they are."""
    canary = Canary(0.0, asked=1.0, enough=1)
    for tokens, nanoseconds in sizes:
        calls(canary.old, tokens, nanoseconds * 1000, 21)
        calls(canary.new, tokens, int(nanoseconds * 1000 * factor), 21)
    plain = canary.verdict(1.0)
    assert plain is not None
    for tokens, _ in sizes:
        calls(canary.new, tokens, 10**15, 1)
    assert plain.calls
    if len({tokens.bit_length() for tokens, _ in sizes}) == len(sizes):
        after = canary.verdict(1.0)
        assert after is not None
        assert after.gain == plain.gain
