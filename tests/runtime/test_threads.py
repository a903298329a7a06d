"""Calls from several Python threads: right results, real overlap, bounded memory."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

import moec
from moec.runtime import memory
from moec.runtime.module import Layer
from moec.runtime.workspace import WORKSPACES, WorkspacePool
from tests.runtime import double


def loaded(folder: Path, *defines: str) -> Layer:
    layer = moec.load(double.artifact(folder, *defines))
    layer.load_state_dict(double.weights())
    return layer


def test_calls_at_once_do_not_share_a_workspace(tmp_path: Path) -> None:
    layer = loaded(tmp_path, "SLEEP_US=300")

    def work(seed: int) -> bool:
        generator = torch.Generator().manual_seed(seed)
        return all(
            torch.equal(layer(x, task), double.expected(x, task))
            for task in range(5)
            for x in [torch.randn(1 + seed % 7, 4, generator=generator)]
        )

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(work, range(64)))


def test_a_call_lets_other_threads_run(tmp_path: Path) -> None:
    layer = loaded(tmp_path, "SLEEP_US=900000")
    x = torch.ones(1, 4)
    call = threading.Thread(target=layer, args=(x, 1))
    call.start()
    turns = 0
    while call.is_alive() and turns < 10:
        turns += 1
        time.sleep(0.001)
    assert turns == 10
    call.join()


def test_release_workspace(layer: Layer) -> None:
    layer(torch.zeros(1000, 4), 0)
    assert layer.release_workspace() >= 1000 * 16
    assert layer.release_workspace() == 0
    layer(torch.zeros(2, 4), 0)


def test_an_error_gives_the_workspace_back(layer: Layer) -> None:
    WORKSPACES.release()
    for _ in range(3):
        with pytest.raises(moec.MoecError):
            layer(torch.zeros(1000, 4), 9)
    assert layer.release_workspace() < 2 * 1000 * 16 + 8192


def test_a_buffer_is_used_again_and_grows() -> None:
    pool = WorkspacePool()
    first = pool.take(100)
    pool.give(first)
    assert pool.take(200) is first
    pool.give(first)
    larger = pool.take(2**20)
    assert larger is not first
    pool.give(larger)
    assert pool.release() == larger.numel(), "the small one is gone"


def test_a_buffer_that_stays_far_too_large_is_dropped() -> None:
    pool = WorkspacePool()
    pool.give(pool.take(2**24))
    for _ in range(100):
        pool.give(pool.take(1000))
    assert pool.release() < 2**14


def test_buffers_of_a_burst_are_dropped() -> None:
    pool = WorkspacePool()
    for buffer in [pool.take(1000) for _ in range(50)]:
        pool.give(buffer)
    for _ in range(200):
        pool.give(pool.take(1000))
    assert pool.release() < 2 * 4096


@pytest.mark.parametrize("nbytes", [0, 1, 64, 4095, 2**22 - 1, 2**22, 2**24 + 3])
def test_memory_is_aligned(nbytes: int) -> None:
    buffer = memory.allocate(nbytes)
    assert (buffer.dtype, buffer.shape) == (torch.uint8, (nbytes,))
    assert buffer.data_ptr() % (memory.HUGE_PAGE if nbytes >= 2**22 else memory.ALIGNMENT) == 0
    buffer.fill_(1)


def test_large_memory_is_not_touched_and_goes_back() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    before = resident()
    buffer = memory.allocate(2**28)
    assert resident() - before < 2**24
    buffer.fill_(1)
    assert resident() - before > 2**27
    del buffer
    assert resident() - before < 2**24
