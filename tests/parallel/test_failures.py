"""Real ranks that are killed, stopped, fail, leave, or never call: every other rank names them within the limit."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

from moec.errors import RankError, ShapeError
from moec.runtime.parallel.failures import watch
from moec.runtime.parallel.signs import Sign, Trouble, diagnose
from tests.parallel.ranks import run

pytestmark = pytest.mark.long

LIMIT = 6.0  # seconds; a busy machine may hold a sound rank up for some
LONG = 60.0  # where something is found before the limit


def exchange(way: str, culprit: int, limit: float) -> tuple[str, tuple[int, ...], float]:
    """Exchanges until rank `culprit` goes its way; what the others then see, and after how many seconds."""
    rank, world = dist.get_rank(), dist.get_world_size()
    ranks = list(range(world))
    over_all = watch(ranks, limit)
    group = dist.new_group(ranks, timeout=timedelta(seconds=120))  # the watch is what limits waits
    sent, received = torch.full((world,), float(rank)), torch.empty(world)
    began = time.monotonic()
    try:
        for step in range(100):
            if step == 2 and rank == culprit:
                began = time.monotonic()
                if way in ("killed", "stopped"):
                    os.kill(os.getpid(), signal.SIGKILL if way == "killed" else signal.SIGSTOP)
                elif way == "late":
                    time.sleep(1000)
                elif way == "leaves":
                    over_all.close()
                    return "", (), 0.0
            with over_all.call(f"step {step}"):
                if way == "fails" and step == 2 and rank == culprit:
                    raise ShapeError("x is odd")
                began = time.monotonic()
                work = dist.all_to_all_single(received, sent, group=group, async_op=True)
                over_all.wait(work, "the exchange of rows", ranks)
                assert received.tolist() == ranks
    except RankError as error:
        took = time.monotonic() - began
        with pytest.raises(RankError):  # and so from now on
            over_all.check()
        return str(error), error.ranks, took
    except ShapeError as error:
        return f"own {error}", (), 0.0
    raise AssertionError("nothing was found")


@pytest.mark.parametrize(
    ("way", "limit", "told"),
    [
        ("killed", LONG, "no sign of life"),
        ("stopped", LIMIT, "no sign of life"),
        ("late", LIMIT, r"alive, but did not make call 3 \(at call 2, between calls\)"),
        ("fails", LONG, "failed: ShapeError: x is odd"),
        ("leaves", LIMIT, "left while others go on"),
    ],
)
def test_every_other_rank_names_the_one_that_is_gone(way: str, limit: float, told: str) -> None:
    culprit = 1
    found = run(exchange, 4, way, culprit, limit, gone=[] if way in ("fails", "leaves") else [culprit])
    for rank, result in enumerate(found):
        if rank == culprit:
            assert result in (None, ("own x is odd", (), 0.0), ("", (), 0.0))
            continue
        message, ranks, took = result
        assert ranks == (culprit,)
        assert f"rank {culprit}" in message
        assert re.search(told, message), message
        assert took < limit + 60, "a busy machine may hold ranks up, but nobody waits for ever"


def lose_the_store() -> tuple[str, tuple[int, ...]]:
    """The rank that holds the store dies: nobody can be asked any more."""
    rank = dist.get_rank()
    over_all = watch(range(3), LIMIT)
    with over_all.call("step 0"):
        over_all.wait(dist.barrier(async_op=True), "a barrier", range(3))
    if rank == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        with over_all.call("step 1"):
            over_all.wait(dist.barrier(async_op=True), "a barrier", range(3))
    except RankError as error:
        return str(error), error.ranks
    raise AssertionError("nothing was found")


def test_death_of_the_rank_with_the_store_is_found() -> None:
    for message, ranks in run(lose_the_store, 3, gone=[0], store_on=0)[1:]:
        assert ranks == (0,)
        assert "the store of the process group is gone" in message


def wait_elsewhere() -> tuple[int, ...]:
    """One thread waits for another, which waits for a rank that is stopped."""
    over_all = watch(range(2), LIMIT)
    if dist.get_rank() == 1:
        dist.barrier()
        os.kill(os.getpid(), signal.SIGSTOP)
    dist.barrier()
    done = threading.Event()
    with pytest.raises(RankError) as raised, over_all.call("step"):
        over_all.wait_event(done, "the stream net.all", range(2))
    return raised.value.ranks


def test_waits_for_other_threads_have_the_same_limit() -> None:
    assert run(wait_elsewhere, 2, gone=[1]) == [(1,), None]


def guarded() -> str:
    over_all = watch(range(2), LIMIT)
    if dist.get_rank() == 1:
        time.sleep(1000)
    with pytest.raises(RankError) as raised, over_all.call("loading"), over_all.guard("a barrier", range(2)):
        dist.barrier()
    return str(raised.value)


def test_blocking_calls_of_torch_become_rank_errors() -> None:
    assert "rank 1: alive, but did not make call 1" in run(guarded, 2, collective=LIMIT, gone=[1])[0]


def signs(**calls: int) -> dict[int, Sign]:
    return {int(name[1:]): Sign(count, 1.0, 5, "here") for name, count in calls.items()}


def test_diagnosis() -> None:
    trouble = Trouble("rows", (0, 1, 2), "timed out", 5)
    before = signs(r0=3, r1=3, r2=3, r3=3)
    fresh = signs(r0=4, r1=4, r2=4, r3=4)
    assert diagnose(0, range(4), before, {**fresh, 3: before[3]}, trouble).ranks == (3,)
    assert diagnose(0, range(4), signs(r0=3), signs(r0=4), trouble).ranks == (1, 2, 3)
    assert diagnose(0, range(4), before, {**fresh, 1: Sign(4, 1.0, 4, "")}, trouble).ranks == (1,)
    # A rank outside of the group that waits may be elsewhere in its program.
    assert diagnose(0, range(4), before, {**fresh, 3: Sign(4, 1.0, 2, "")}, trouble).ranks == (1, 2)
    assert diagnose(0, range(4), before, {**fresh, 2: Sign(3, 1.0, 5, "", left=True)}, trouble).ranks == (2,)
    # One that is dead explains one that is behind: it may have waited for it.
    both = {**fresh, 1: Sign(4, 1.0, 4, ""), 2: before[2]}
    assert diagnose(0, range(4), before, both, trouble).ranks == (2,)
