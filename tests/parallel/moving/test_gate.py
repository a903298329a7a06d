"""When tables change: never within a step, on all ranks at the same one, whatever the threads' pace."""

from __future__ import annotations

import random
import threading
import time

import pytest

from moec.errors import RankError
from moec.placement.problem import Placement
from moec.placement.table import Table
from moec.runtime.parallel.moving.gate import Active, Gate, Swap

TABLES = (Table.first(Placement.contiguous(2, 2), 1, (2,)),)


def version(number: int, serves: bool = True) -> Active:
    return Active(number, TABLES, (TABLES[0].lookup(0) if serves else None,))


def nothing() -> None:
    pass


def test_a_change_waits_for_its_step() -> None:
    done: list[int] = []
    gate = Gate(version(0), 100)
    gate.begin()
    assert gate.fence(3) == 4
    gate.swap(Swap(4, version(1), lambda: done.append(gate.step)))
    assert [gate.begin().version for _ in range(5)] == [0, 0, 0, 1, 1]
    assert done == [4]  # the fifth step is the first with the new tables
    assert gate.settled(0)
    assert gate.last is not None
    assert gate.last.step == 4


def test_a_step_waits_at_the_fence() -> None:
    gate = Gate(version(0), 100)
    gate.fence(1)
    assert gate.begin().version == 0
    begin = time.monotonic()
    threading.Timer(0.2, lambda: gate.swap(Swap(1, version(1), nothing))).start()
    assert gate.begin().version == 1
    assert time.monotonic() - begin > 0.1


def test_an_opened_fence_changes_nothing() -> None:
    gate = Gate(version(0), 100)
    gate.fence(0)
    threading.Timer(0.1, gate.open).start()
    assert gate.begin().version == 0


def test_ranks_that_may_disagree_make_no_step() -> None:
    gate = Gate(version(0), 100)
    gate.fence(0)
    threading.Timer(0.1, lambda: gate.fail(RankError("lost", (1,)))).start()
    for _ in range(2):
        with pytest.raises(RankError, match="lost"):
            gate.begin()


def test_nobody_waits_for_ever() -> None:
    gate = Gate(version(0), 0.1)
    gate.fence(0)
    for _ in range(2):
        with pytest.raises(RankError, match=r"did not agree within 0\.1 s"):
            gate.begin()


def test_who_does_not_serve_joins_at_the_step_of_the_others() -> None:
    gate = Gate(version(0, serves=False), 100)
    assert not gate.begin().serves
    assert not gate.join(0.01)
    assert gate.fence(4) == 0
    gate.swap(Swap(7, version(1, serves=False), nothing))
    assert gate.active.version == 1  # nobody makes steps here, so at once
    assert not gate.join(0.01)
    gate.swap(Swap(9, version(2), nothing))
    assert not gate.settled(0)
    assert gate.join(100)
    assert gate.step == 9
    assert gate.begin().version == 2
    gate.swap(Swap(11, version(3, serves=False), nothing))
    assert [gate.begin().serves for _ in range(3)] == [True, False, False]
    assert gate.step == 11
    threading.Timer(0.1, gate.close).start()
    assert not gate.join()


@pytest.mark.parametrize("seed", range(3))
def test_all_ranks_change_at_the_same_step(seed: int) -> None:
    """Three ranks in lockstep, whose movers confer now and then, each after a while of its own."""
    ranks, steps = 3, 200
    gates = [Gate(version(0), 100) for _ in range(ranks)]
    together, conferring = threading.Barrier(ranks), threading.Barrier(ranks)
    ended, stopping = threading.Event(), threading.Event()
    # One thread asks for all: steps may end while movers ask one after another, and then some wait for the others.
    starting = threading.Barrier(ranks, lambda: stopping.set() if ended.is_set() else None)
    fences = [0] * ranks
    seen: list[list[int]] = [[] for _ in range(ranks)]

    def make_steps(rank: int) -> None:
        chance = random.Random(f"{seed} steps {rank}")
        while len(seen[rank]) < steps or seen[rank][-1] <= 3:
            seen[rank].append(gates[rank].begin().version)
            time.sleep(chance.random() * 1e-3)
            together.wait(100)
        ended.set()

    def move(rank: int) -> None:
        chance = random.Random(f"{seed} moves {rank}")
        number = 0
        while True:
            time.sleep(chance.random() * 5e-3)
            starting.wait(100)
            if stopping.is_set():
                return
            number += 1
            fences[rank] = gates[rank].fence(1)
            time.sleep(chance.random() * 5e-3)
            conferring.wait(100)
            gates[rank].swap(Swap(max(fences), version(number), nothing))
            while not gates[rank].settled(0.01):
                if ended.is_set():
                    break
            conferring.wait(100)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(ranks) for work in (make_steps, move)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(200)
    assert not any(thread.is_alive() for thread in threads)
    assert seen[0] == seen[1] == seen[2]
    assert seen[0][-1] > 3
