"""Weights in a mapped file: the same bytes come back, memory keeps its limit, and what stays follows the load."""

from __future__ import annotations

import gc
import os
import time
from pathlib import Path

import pytest
import torch

from moec.artifact.manifest import ExpertRegion
from moec.errors import WeightsError
from moec.runtime.adapt.mapped import MappedMemory
from moec.runtime.adapt.residency import Moved, Residency
from moec.runtime.adapt.statistics import LoadStatistics

EXPERTS, STRIDE, REST = 8, 64 * 4096, 4096
NBYTES = EXPERTS * STRIDE + REST
REGIONS = (ExpertRegion(0, STRIDE, tuple(range(EXPERTS))), ExpertRegion(EXPERTS * STRIDE, REST, (-1,)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder on a disk: what tmpfs holds cannot leave memory."""
    kinds = {line.split()[1]: line.split()[2] for line in Path("/proc/mounts").read_text().splitlines()}
    mount = max((path for path in kinds if str(tmp_path).startswith(path)), key=len)
    if kinds[mount] in ("tmpfs", "ramfs"):
        pytest.skip(f"{mount} is a {kinds[mount]}: its files are memory")
    return tmp_path


def filled(folder: Path) -> tuple[MappedMemory, torch.Tensor]:
    memory = MappedMemory(NBYTES, folder)
    values = torch.randint(0, 256, (NBYTES,), dtype=torch.uint8)
    memory.buffer.copy_(values)
    return memory, values


def choose(statistics: LoadStatistics, experts: list[int], calls: int = 1) -> None:
    for _ in range(calls):
        row = statistics.take(1)
        assert row is not None
        row.tensors[0].zero_()
        row.tensors[0][experts] = 1
        statistics.give(row, 1, 0)
    statistics.fold()


def test_what_was_let_go_comes_back_from_the_disk(folder: Path) -> None:
    memory, values = filled(folder)
    whole = [(0, NBYTES)]
    assert memory.resident(whole) == NBYTES
    memory.drop([(100, STRIDE + 100), (2 * STRIDE, 3 * STRIDE)])
    assert memory.resident(whole) == NBYTES - (STRIDE - 4096) - STRIDE
    memory.drop([(5, 6), (7, 7)])
    assert torch.equal(memory.buffer, values)
    memory.buffer[0] += 1  # what is written after it came back is not lost either
    memory.drop(whole)
    assert memory.buffer[0] == values[0] + 1
    assert torch.equal(memory.buffer[1:], values[1:])


def test_nothing_stays_behind(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    memory = MappedMemory(NBYTES, tmp_path)
    view = memory.buffer[5:10]
    assert not list(tmp_path.iterdir())
    del memory
    gc.collect()
    view.fill_(1)  # the mapping lives as long as any tensor of it
    del view
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


def test_no_room_is_an_error_and_not_a_signal(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="has no room for"):
        MappedMemory(1 << 60, tmp_path)


def test_what_is_chosen_most_stays(folder: Path) -> None:
    memory, values = filled(folder)
    statistics = LoadStatistics(EXPERTS, 2, capacity=False, half_life=4)
    residency = Residency(memory, REGIONS, statistics, REST + 3 * STRIDE, lambda moved: None)
    statistics.listen(residency._heard)
    choose(statistics, [1, 2, 3], 10)
    choose(statistics, [0, 1], 2)
    moved = residency.settle()
    assert set(moved.went) == {0, 4, 5, 6, 7}
    assert residency.present == (1, 2, 3)
    assert residency.nbytes <= REST + 3 * STRIDE
    choose(statistics, [6, 7], 30)  # the load has moved
    moved = residency.settle()
    assert moved.came == (6, 7)
    assert {6, 7} < set(residency.present)
    assert len(residency.present) == 3
    assert torch.equal(memory.buffer, values)


def test_new_hot_experts_win_soon_and_rare_ones_never(folder: Path) -> None:
    memory, _ = filled(folder)
    statistics = LoadStatistics(EXPERTS, 2, capacity=False)
    residency = Residency(memory, REGIONS, statistics, REST + 2 * STRIDE, lambda moved: None)
    statistics.listen(residency._heard)
    choose(statistics, [0, 1], 1000)
    choose(statistics, [5])
    residency.settle()
    assert residency.present == (0, 1), "one use is not enough"
    choose(statistics, [6, 7], 3)
    residency.settle()
    assert residency.present == (6, 7), "however long the others were hot"


def test_a_fixed_set_stays_whatever_comes(folder: Path) -> None:
    memory, _ = filled(folder)
    statistics = LoadStatistics(EXPERTS, 2, capacity=False)
    residency = Residency(memory, REGIONS, statistics, REST + 2 * STRIDE, lambda moved: None, keep=[0, 5])
    statistics.listen(residency._heard)
    choose(statistics, [1, 2], 20)
    residency.settle()
    assert residency.present == (0, 5)


def test_a_thread_keeps_the_limit(folder: Path) -> None:
    memory, values = filled(folder)
    statistics = LoadStatistics(EXPERTS, 2, capacity=False)
    reports: list[Moved] = []
    residency = Residency(memory, REGIONS, statistics, REST + 2 * STRIDE, reports.append)
    residency.start()
    try:
        for expert in range(EXPERTS):
            choose(statistics, [expert])
            assert torch.equal(memory.buffer, values)
        deadline = time.monotonic() + 120
        while len(residency.present) > 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(residency.present) == 2
    finally:
        residency.stop()
    assert sum(len(moved.went) for moved in reports) >= EXPERTS - 2


def test_a_limit_below_one_expert_is_refused(tmp_path: Path) -> None:
    statistics = LoadStatistics(EXPERTS, 2, capacity=False)
    with pytest.raises(WeightsError, match="too few"):
        Residency(MappedMemory(NBYTES, tmp_path), REGIONS, statistics, STRIDE, lambda moved: None)
