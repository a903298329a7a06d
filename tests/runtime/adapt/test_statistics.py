"""Statistics against sums written out, from one thread and from many."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moec.runtime.adapt.prometheus import exposition
from moec.runtime.adapt.recorder import Recorder
from moec.runtime.adapt.statistics import LoadStatistics
from moec.trace import summarise

E = 4
CALLS = st.lists(st.tuples(st.integers(0, 5000), st.lists(st.integers(0, 9), min_size=E, max_size=E)), max_size=40)


def run(statistics: LoadStatistics, tokens: int, chosen: list[int], kept: list[int] | None = None) -> None:
    row = statistics.take(tokens)
    assert row is not None
    for tensor, counts in zip(row.tensors, (chosen, kept), strict=False):
        tensor[:] = tensor.new_tensor(counts)
    statistics.give(row, tokens, 0)


@given(CALLS, st.integers(1, 100))
def test_recent_calls_count_more(calls: list[tuple[int, list[int]]], half_life: int) -> None:
    statistics = LoadStatistics(E, 2, capacity=False, half_life=half_life)
    recent, weight, tokens = np.zeros(E), 0.0, 0.0
    factor = 0.5 ** (1 / half_life)
    for number, (count, chosen) in enumerate(calls):
        run(statistics, count, chosen)
        recent = recent * factor + np.array(chosen)
        weight, tokens = weight * factor + 1, tokens * factor + count
        if number % 7 == 3:
            statistics.fold()
    found = statistics.snapshot()
    assert found.calls == len(calls)
    assert found.total_tokens == sum(count for count, _ in calls)
    assert found.chosen.tolist() == np.array([c for _, c in calls], int).reshape(-1, E).sum(0).tolist()
    assert found.tokens == pytest.approx(tokens / weight if calls else 0)
    if recent.sum():
        assert found.shares == pytest.approx(recent / recent.sum())
        assert found.imbalance == pytest.approx(recent.max() / recent.mean())
        assert found.share == pytest.approx(recent.max() / recent.sum())
    else:
        assert found.imbalance == 1
    by_hand: dict[int, int] = {}
    for count, _ in calls:
        power = 1 << (count.bit_length() - 1) if count else 0
        by_hand[power] = by_hand.get(power, 0) + 1
    assert found.histogram == by_hand


def test_overflow_is_what_was_dropped_lately() -> None:
    statistics = LoadStatistics(E, 2, capacity=True, half_life=1)
    run(statistics, 4, [8, 0, 0, 0], [4, 0, 0, 0])
    run(statistics, 4, [2, 2, 2, 2], [2, 2, 2, 2])
    found = statistics.snapshot()
    assert found.dropped == 4
    assert found.overflow == pytest.approx(4 * 0.5 / (8 * 0.5 + 8))


def test_an_expert_is_empty_some_half_lives_after_its_last_token() -> None:
    statistics = LoadStatistics(E, 1, capacity=False, half_life=1)
    run(statistics, 4, [1, 1, 1, 1])
    assert statistics.snapshot().empty == 0
    for _ in range(5):
        run(statistics, 1, [1, 0, 0, 0])
    assert statistics.snapshot().empty == 0.75


def test_no_call_is_lost_or_counted_twice_by_many_threads() -> None:
    statistics = LoadStatistics(E, 1, capacity=False)
    each = 2000

    def call(expert: int) -> None:
        for _ in range(each):
            row = statistics.take(1)
            assert row is not None
            row.tensors[0].zero_()
            row.tensors[0][expert] = 1
            statistics.give(row, 1, 0)

    threads = [threading.Thread(target=call, args=(expert,)) for expert in range(E)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        statistics.snapshot()
    for thread in threads:
        thread.join()
    assert statistics.snapshot().chosen.tolist() == [each] * E


def test_more_calls_at_once_than_rows_go_uncounted() -> None:
    statistics = LoadStatistics(E, 1, capacity=False)
    rows = []
    while (row := statistics.take(1)) is not None:
        rows.append(row)
    assert statistics.snapshot().uncounted == 1
    statistics.ring.cancel(rows.pop())
    assert statistics.take(1) is not None
    assert statistics.snapshot().calls == 0


def test_prometheus_reads_it() -> None:
    statistics = LoadStatistics(E, 2, capacity=True)
    run(statistics, 0, [0] * E, [0] * E)
    run(statistics, 1, [1, 1, 0, 0], [1, 1, 0, 0])
    run(statistics, 5, [5, 3, 2, 0], [4, 3, 2, 0])
    text = exposition(statistics.snapshot(), {"layer": 'a"b\\c\nd'})
    assert 'layer="a\\"b\\\\c\\nd"' in text
    values = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            match = re.fullmatch(r'([a-z_]+)\{((?:[a-z]+="(?:[^"\\]|\\.)*",?)+)\} (\S+)', line)
            assert match, line
            more = re.sub(r'layer="(?:[^"\\]|\\.)*",?', "", match[2])
            values[match[1], more] = float(match[3])
    assert values["moec_call_tokens_bucket", 'le="0"'] == 1
    assert values["moec_call_tokens_bucket", 'le="1"'] == 2
    assert values["moec_call_tokens_bucket", 'le="3"'] == 2
    assert values["moec_call_tokens_bucket", 'le="7"'] == 3
    assert values["moec_call_tokens_bucket", 'le="+Inf"'] == values["moec_call_tokens_count", ""] == 3
    assert values["moec_expert_slots_total", 'expert="0"'] == 6
    assert values["moec_dropped_slots_total", ""] == 1
    assert values["moec_tokens_total", ""] == values["moec_call_tokens_sum", ""] == 6


def test_a_recording_is_a_trace_of_what_it_saw(tmp_path: Path) -> None:
    statistics = LoadStatistics(E, 2, capacity=False)
    run(statistics, 1, [1, 1, 0, 0])
    with Recorder(statistics, tmp_path / "a.trace", interval=0):
        run(statistics, 3, [3, 2, 1, 0])
        statistics.fold()
        run(statistics, 0, [0, 0, 0, 0])
    run(statistics, 1, [1, 1, 0, 0])
    statistics.fold()
    found = summarise(tmp_path / "a.trace")
    assert (found.calls, found.tokens, found.counts) == (2, 3, [3, 2, 1, 0])
    assert found.histogram == {2: 1, 0: 1}


def test_a_recording_that_cannot_be_written_ends_without_touching_calls(tmp_path: Path) -> None:
    statistics = LoadStatistics(E, 2, capacity=False)
    recorder = Recorder(statistics, tmp_path / "a.trace", interval=0)

    def full(sample: object) -> None:
        raise OSError(28, "No space left on device")

    recorder._writer.write = full  # type: ignore[method-assign]
    run(statistics, 1, [1, 0, 0, 0])
    statistics.fold()
    run(statistics, 1, [1, 0, 0, 0])
    assert statistics.snapshot().calls == 2
    with pytest.raises(OSError, match="No space"):
        recorder.stop()


def test_a_forked_child_is_not_stuck_on_a_lock_that_nobody_holds() -> None:
    statistics = LoadStatistics(E, 2, capacity=False)
    run(statistics, 1, [1, 0, 0, 0])
    with statistics._lock, statistics.ring._draining:
        pid = os.fork()
        if pid == 0:
            os._exit(statistics.snapshot().calls)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    assert statistics.snapshot().calls == 1
