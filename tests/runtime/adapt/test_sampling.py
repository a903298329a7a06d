"""Which calls are counted: what they stand for is all calls, whatever the traffic, and long ones are all counted."""

from __future__ import annotations

import threading
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moec.artifact.policy import Comparison, Trigger, Window
from moec.runtime.adapt.guards import Guard, State
from moec.runtime.adapt.ring import Batch
from moec.runtime.adapt.sampling import Sampling
from moec.runtime.adapt.statistics import LoadStatistics

SHORT, LONG = 20e-6, 5e-3
COST = 2e-6


def taught(seed: int = 0, **seconds: float) -> Sampling:
    """One that knows how long calls of `tN` tokens take, and that counting takes 2 µs."""
    sampling = Sampling(seed)
    for name, each in seconds.items():
        many = np.full(1000, int(name[1:]))
        sampling.learn(many, np.full(1000, each), np.ones(1000, np.int64), np.full(1000, COST))
        sampling.learn(many, np.full(1000, each), np.full(1000, 2), np.full(1000, COST))
    return sampling


def weights(sampling: Sampling, calls: Iterable[int]) -> np.ndarray:
    """For how many calls each of these stands, by their tokens; 0 for those that are not counted."""
    found = []
    for tokens in calls:
        try:
            next(sampling.gates[tokens])
            found.append(0)
        except (KeyError, StopIteration):
            found.append(sampling.draw(tokens))
    return np.array(found)


def test_counting_takes_less_than_a_hundredth_of_the_calls() -> None:
    found = weights(taught(t1=SHORT), [1] * 100_000)
    assert np.count_nonzero(found) * COST < 0.01 * len(found) * SHORT
    assert np.count_nonzero(found) > 1000


def test_long_calls_are_all_counted_and_those_of_which_nothing_is_known() -> None:
    sampling = taught(t1=SHORT, t2048=LONG)
    found = weights(sampling, [1, 2048, 16] * 1000)
    assert (found[1::3] == 1).all()
    assert (found[2::3] == 1).all()
    assert np.count_nonzero(found[::3]) < 100


@settings(max_examples=20)
@given(st.integers(0, 2**32), st.lists(st.sampled_from([1, 2, 3, 5, 8]), min_size=1, max_size=12))
def test_every_call_is_as_likely_to_be_counted_whatever_the_rhythm(seed: int, rhythm: list[int]) -> None:
    """Totals of each place of a rhythm are within six standard deviations; those of all calls exact."""
    sampling = taught(seed, t1=SHORT, t2=2 * SHORT, t5=4 * SHORT, t8=8 * SHORT)
    turns = 2000
    found = weights(sampling, rhythm * turns).reshape(turns, -1)
    most = found.max()
    assert np.abs(found.sum(0) - turns).max() <= 6 * (turns * most) ** 0.5
    tokens, histogram = sampling.uncounted()
    counted = found > 0
    assert tokens + int((counted * rhythm).sum()) == turns * sum(rhythm)
    assert histogram.sum() + counted.sum() == turns * len(rhythm)


def test_there_is_no_bias() -> None:
    """The mean of many estimates from short traffic is what there was, also where it ends in the middle of a wait."""
    estimates = [weights(taught(seed, t1=SHORT), [1] * 7)[[0, 3, 6]] for seed in range(1000)]
    assert np.mean(estimates, 0) == pytest.approx([1, 1, 1], abs=1.0)


def test_what_calls_take_changes_how_many_are_counted() -> None:
    sampling = taught(t1=SHORT)
    weights(sampling, [1] * 1000)
    sampling.learn(*(np.full(1000, one) for one in (1, 4 * SHORT, 20, COST)))  # a jump is believed step by step
    sampling.learn(*(np.full(1000, one) for one in (1, LONG, 20, COST)))
    for _ in range(9):
        sampling.learn(*(np.full(1000, one) for one in (1, LONG, 20, COST)))
    assert (weights(sampling, [1] * 2000)[1000:] == 1).all()


def test_more_numbers_of_tokens_than_there_is_room_for() -> None:
    lengths = {f"t{1 << power}": SHORT for power in range(13)}
    sampling = taught(**lengths)
    traffic = list(range(1, 5000)) * 3
    counted = weights(sampling, traffic) > 0
    assert len(sampling.gates) <= 1024
    assert counted.mean() < 0.1
    tokens, histogram = sampling.uncounted()
    assert tokens + int(np.array(traffic)[counted].sum()) == sum(traffic)
    assert histogram.sum() + counted.sum() == len(traffic)


def test_threads_race_and_no_call_is_lost() -> None:
    sampling = taught(t1=SHORT)
    each, counted = 50_000, []

    def call() -> None:
        counted.append(np.count_nonzero(weights(sampling, [1] * each)))

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sampling.uncounted()[0] + sum(counted) == 4 * each


def test_the_first_calls_are_all_counted() -> None:
    sampling = taught(t1=SHORT)
    weights(sampling, [1] * 1000)
    sampling.start_over()
    assert (weights(sampling, [1] * 1000) == 1).all()
    sampling.learn(*(np.full(1000, one) for one in (1, SHORT, 1, COST)))
    assert np.count_nonzero(weights(sampling, [1] * 1000)) < 100


def test_all_calls_are_counted_where_somebody_needs_every_one() -> None:
    sampling = taught(t1=SHORT)
    weights(sampling, [1] * 1000)
    sampling.count_all(True)
    assert (weights(sampling, [1] * 1000) == 1).all()
    sampling.count_all(False)
    assert np.count_nonzero(weights(sampling, [1] * 1000)) < 100


class Calls:
    """Calls of a layer that take `seconds` each and choose experts with the probabilities `p`."""

    def __init__(self, experts: int, slots: int) -> None:
        self.statistics = LoadStatistics(experts, slots, capacity=False)
        self.statistics.sampling = taught(t1=SHORT, t2048=LONG)
        self.statistics.gates = self.statistics.sampling.gates
        self.random = np.random.default_rng(1)

    def run(self, tokens: int, seconds: float, p: np.ndarray) -> None:
        try:
            next(self.statistics.gates[tokens])
            return
        except (KeyError, StopIteration):
            row = self.statistics.take(tokens)
        if row is not None:
            row.tensors[0][:] = row.tensors[0].new_tensor(self.random.multinomial(tokens, p))
            self.statistics.give(row, tokens, int(seconds * 1e9))


def test_statistics_of_short_and_long_calls_together() -> None:
    calls = Calls(4, 1)
    heard: list[Batch] = []
    calls.statistics.listen(heard.append)
    for number in range(40_000):
        if number % 100:
            calls.run(1, SHORT, np.array([0.7, 0.3, 0.0, 0.0]))
        else:
            calls.run(2048, LONG, np.array([0.0, 0.0, 0.5, 0.5]))
    found = calls.statistics.snapshot()
    assert (found.calls, found.total_tokens) == (40_000, 39_600 + 400 * 2048)
    assert found.histogram == {1: 39_600, 2048: 400}
    assert found.chosen[2:].sum() == 400 * 2048
    assert found.chosen[:2] == pytest.approx([0.7 * 39_600, 0.3 * 39_600], rel=0.5)
    assert sum(len(batch) for batch in heard) < 10_000
    assert 2 < found.tokens < 200


def test_guards_see_a_load_of_which_little_is_counted() -> None:
    calls = Calls(8, 1)
    guard = Guard(Trigger(Comparison("imbalance", ">", 3.0), "imbalance > 3", Window(calls=500), gain=1.1))
    even, skewed = np.full(8, 1 / 8), np.array([0.65] + [0.05] * 7)

    def state(p: np.ndarray, number: int) -> State:
        for _ in range(number):
            calls.run(1, SHORT, p)
        load = calls.statistics.snapshot()
        return guard.update({"imbalance": load.imbalance}, load.calls, 0.0)

    assert {state(even, 1000) for _ in range(20)} == {State.IDLE}
    states = [state(skewed, 1000) for _ in range(20)]
    assert State.TRIPPED in states
