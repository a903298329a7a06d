"""From a group to its file, and how the machine is kept quiet meanwhile."""

from __future__ import annotations

import fcntl
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bench import machine
from bench.__main__ import chosen, parse_arguments
from bench.cell import Cell
from bench.groups import SUITE, Group
from bench.layer import Layer
from bench.limits import Limits, Prober
from bench.measure import Plan
from bench.run import Bench, measure, write
from bench.shapes import SHAPES

TINY = replace(SHAPES["olmoe"], d=48, ff=32, experts=6, top_k=2)


def _bench(said: list[str]) -> Bench:
    prober = Prober(threads=1, mib_per_thread=8)
    return Bench(prober, Limits(1, 1, 1, 1), Plan(), False, lambda text, cells: said.append(text))


def test_a_group_becomes_a_file(tmp_path: Path) -> None:
    said: list[str] = []
    bench = _bench(said)
    routes = ("loop", "grouped_mm", "zentorch")
    group = Group(
        "inference", "olmoe", "f32", routings=("one",), tokens=(1, 5), routes=routes, rounds=1, turn_seconds=0.0
    )
    cells, skipped = measure(group, Layer(TINY), bench)
    write(tmp_path / "a.json", group, cells, skipped, bench)
    data = json.loads((tmp_path / "a.json").read_text())
    assert data["group"]["section"] == "inference"
    assert [Cell.from_json(cell) for cell in data["cells"]] == cells
    assert [cell.tokens for cell in cells] == [1, 5]
    assert {"loop", "grouped_mm"} <= set(cells[0].timings)
    assert set(skipped) <= {"zentorch"}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert any("T=5" in text for text in said)


def test_routes_that_do_not_fit_in_memory_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "available_bytes", lambda: 1000)
    group = Group("inference", "olmoe", "f32", tokens=(1,), routes=("loop",), rounds=1)
    cells, skipped = measure(group, Layer(TINY), _bench([]))
    assert "GB of memory" in skipped["loop"]
    assert not cells[0].timings


def test_the_suite_goes_on_where_it_was_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = SUITE[0]
    (tmp_path / f"{done.name}.json").write_text("{}")
    monkeypatch.setattr(sys, "argv", ["bench", "--suite", "--out", str(tmp_path)])
    assert chosen(parse_arguments()) == [group for group in SUITE if group != done]
    monkeypatch.setattr(sys, "argv", ["bench", "--suite", "training-*", "--again", "--out", str(tmp_path)])
    assert {group.section for group in chosen(parse_arguments())} == {"training"}


def test_cells_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", "--formats", "int4", "bf16", "--shapes", "olmoe", "--tokens", "3"])
    found = chosen(parse_arguments())
    assert [(group.section, group.format, group.tokens) for group in found] == [
        ("quantised", "int4", (3,)),
        ("inference", "bf16", (3,)),
    ]


def test_one_at_a_time_holds_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with open(path, "w") as other:
        with machine.quiet("normal", path), pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("priority", ["raised", "realtime"])
def test_priority_comes_and_goes(priority: str) -> None:
    def state() -> tuple[int, int]:
        return os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0)

    before = state()
    try:
        with machine.quiet(priority):
            inside = state()
    except PermissionError:
        pytest.skip("this process may not raise its priority")
    assert state() == before
    assert inside == ((os.SCHED_FIFO, before[1]) if priority == "realtime" else (before[0], machine.NICE))
