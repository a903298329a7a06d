"""What is known of the last calls."""

from __future__ import annotations

import numpy as np
import pytest

from moec.runtime.adapt.recent import RecentCalls
from moec.runtime.adapt.ring import Batch


def heard(
    recent: RecentCalls,
    tokens: list[int],
    seconds: list[float],
    builds: list[int] | None = None,
    weights: list[int] | None = None,
) -> None:
    counts = np.zeros((len(tokens), 4), np.int64)
    variants = np.array(builds or [0] * len(tokens))
    each = np.array(weights or [1] * len(tokens))
    recent.heard(Batch(np.array(tokens), counts, None, np.array(seconds), variants, each, np.zeros(len(tokens))))


def test_calls_of_a_range() -> None:
    recent = RecentCalls()
    assert recent.within((1, 4)) == (0.0, 0.0)
    assert recent.latency() is None
    heard(recent, [1, 4, 100, 100], [0.1, 0.3, 1.0, 2.0], [1, 1, 0, 2])
    assert recent.within((1, 4)) == (0.5, pytest.approx(0.2))
    assert recent.within(None) == (1.0, pytest.approx(0.85))
    assert recent.within((5, 99)) == (0.0, 0.0)
    assert recent.sizes(None) == (1, 4, 100), "by the time that they take"
    assert recent.sizes((5, 99)) == ()
    assert recent.seconds(1) == pytest.approx(0.2)
    assert recent.seconds(7) == 0.0


def test_latencies_are_those_since_the_last_time() -> None:
    recent = RecentCalls(most=100)
    heard(recent, [1] * 50, [0.001] * 50)
    assert recent.latency() == {"p50": pytest.approx(1.0), "p99": pytest.approx(1.0)}
    assert recent.latency() is None
    heard(recent, [1] * 500, [0.002] * 500)
    assert recent.latency() == {"p50": pytest.approx(2.0), "p99": pytest.approx(2.0)}
    assert recent.within(None)[1] == pytest.approx(0.002), "what is older than the last hundred is forgotten"


def test_a_call_that_the_system_stopped_counts_little() -> None:
    recent = RecentCalls()
    heard(recent, [1] * 100, [0.001] * 99 + [10.0])
    assert recent.within(None)[1] < 0.002
    assert recent.seconds(0) < 0.002


def test_a_call_counts_as_often_as_it_stands_for_others() -> None:
    recent = RecentCalls()
    heard(recent, [1, 256], [0.001, 0.1], weights=[98, 2])
    assert recent.within((1, 1)) == (pytest.approx(0.98), pytest.approx(0.001))
    assert recent.sizes(None) == (1, 256)
    assert recent.latency() == {"p50": pytest.approx(1.0), "p99": pytest.approx(100.0)}


def test_what_was_long_ago_counts_only_while_little_is_known_since() -> None:
    now = 0.0
    recent = RecentCalls(clock=lambda: now)
    heard(recent, [1] * 1000, [0.001] * 1000)
    now = 60.0
    heard(recent, [16] * 100, [0.001] * 100)
    assert recent.within((16, 16))[0] == pytest.approx(100 / 1100)
    heard(recent, [16] * 200, [0.001] * 200)
    assert recent.within((16, 16))[0] == 1.0
    now = 120.0
    assert recent.within((16, 16))[0] == 1.0, "where nobody calls, nothing is forgotten"
