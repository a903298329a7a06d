"""When experts move: if it saves more than it takes, and not again and again."""

from __future__ import annotations

import numpy as np
import pytest

from moec.placement.problem import Placement
from moec.placement.table import Table
from moec.runtime.parallel.moving.decide import Judge, Verdict
from moec.runtime.parallel.moving.rules import Rules

TABLE = Table.first(Placement.contiguous(8, 2), 5, (2,))
EVEN = np.full(8, 100)
SKEWED = np.asarray([400, 300, 200, 100, 10, 10, 10, 10])


def looks(judge: Judge, load: np.ndarray, busy: float, times: int, table: Table = TABLE) -> list[Verdict]:
    """What comes of looking once a second at a load that goes on, where experts take the share `busy` of the time."""
    found = [judge.look(table, load * i, busy * i, float(i)) for i in range(1, times + 1)]
    return [verdict for verdict in found if verdict is not None]


def test_an_even_load_moves_nothing() -> None:
    assert looks(Judge(Rules(), 8, 1000, 1e8), EVEN, 0.5, 20) == []


def test_a_skewed_load_moves_experts_once_it_has_lasted() -> None:
    first = looks(Judge(Rules(), 8, 1000, 1e8), SKEWED, 0.5, 5)[-1]
    assert first.table is not None
    assert first.before == pytest.approx(1000 / 520)
    assert first.after < 1.1
    assert first.saved > first.cost
    assert first.table.arrivals(TABLE)
    assert "travel" in first.why


def test_what_costs_more_than_it_saves_stays() -> None:
    found = looks(Judge(Rules(), 8, 10**9, 1e6), SKEWED, 0.5, 30)
    assert found
    assert all(verdict.table is None for verdict in found)
    assert len(found) < 8  # asked less and less often


def test_idle_experts_are_worth_no_move() -> None:
    assert all(verdict.table is None for verdict in looks(Judge(Rules(), 8, 10**6, 1e8), SKEWED, 1e-5, 20))


def test_copies_are_made_where_rules_allow_them() -> None:
    load = np.asarray([1000, 10, 10, 10, 10, 10, 10, 10])
    alone = looks(Judge(Rules(), 8, 1000, 1e8), load, 0.5, 10)
    assert all(verdict.table is None for verdict in alone)
    shared = looks(Judge(Rules(most_copies=2), 8, 1000, 1e8), load, 0.5, 10)[-1]
    assert shared.table is not None
    assert shared.table.placement.holders[0] == (0, 1)
    assert shared.after == pytest.approx(1.0, abs=0.05)


def test_a_load_is_judged_by_seconds_that_come_now_and_then() -> None:
    """Long calls: few are timed, and most looks find nothing new."""
    judge = Judge(Rules(), 8, 1000, 1e8)
    found = [judge.look(TABLE, SKEWED * i, 10.0 * (i // 20), float(i)) for i in range(1, 60)]
    assert found[:19] == [None] * 19
    first = found[19]
    assert first is not None
    assert first.table is not None
    assert first.saved == pytest.approx(10 * 4 * (first.before - first.after) / first.before)


def test_a_new_load_is_noticed_soon() -> None:
    """However much of the old load there was."""
    judge = Judge(Rules(), 8, 1000, 1e8)
    assert looks(judge, EVEN, 0.5, 1000) == []
    later = [judge.look(TABLE, EVEN * 1000 + SKEWED * i, 500 + 0.5 * i, 1000.0 + i) for i in range(1, 10)]
    assert any(verdict is not None and verdict.table is not None for verdict in later)


def test_speed_is_learned() -> None:
    judge = Judge(Rules(), 8, 10**6, 1e6)
    for _ in range(20):
        judge.learn(10**8, 1.0)
    verdict = looks(judge, SKEWED, 0.5, 5)[-1]
    assert verdict.cost == pytest.approx(verdict.copies * 0.01, rel=0.01)
