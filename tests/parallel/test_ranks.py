"""The harness itself: what it returns, and that nothing of it can hang."""

from __future__ import annotations

import os
import signal
import time

import pytest
import torch
import torch.distributed as dist

from tests.parallel.ranks import RanksFailed, run


def summed(factor: int) -> torch.Tensor:
    mine = torch.tensor([factor * dist.get_rank()])
    dist.all_reduce(mine)
    return mine


def about_me(given: torch.Tensor) -> dict[str, object]:
    given += dist.get_rank()  # no other rank sees it
    return {"rank": dist.get_rank(), "threads": torch.get_num_threads(), "given": given, "nested": [(1, "two")]}


def raises_on_one() -> None:
    print("some output")
    if dist.get_rank() == 1:
        raise ValueError("wrong here")
    dist.barrier()


def stops_on(rank: int, number: int) -> int:
    if dist.get_rank() == rank:
        os.kill(os.getpid(), number)
    return dist.get_rank()


def sleeps() -> None:
    time.sleep(1000)


@pytest.mark.parametrize("store_on", [None, 1])
def test_what_ranks_return(store_on: int | None) -> None:
    assert [int(total) for total in run(summed, 3, 2, store_on=store_on)] == [6, 6, 6]


def test_arguments_are_copies_and_results_plain() -> None:
    for rank, found in enumerate(run(about_me, 2, torch.zeros(2))):
        assert found["given"].tolist() == [rank, rank]
        assert (found["rank"], found["threads"], found["nested"]) == (rank, 1, [(1, "two")])


def test_every_traceback_and_output_is_told() -> None:
    with pytest.raises(RanksFailed, match=r"(?s)some output.*rank 1 Traceback.*in raises_on_one.*wrong here"):
        run(raises_on_one, 2)


def test_a_dead_rank_fails_the_test() -> None:
    with pytest.raises(RanksFailed, match="rank 1 ended without an answer, with exit code -9"):
        run(stops_on, 2, 1, signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_ranks_that_may_go_are_not_waited_for(number: int) -> None:
    assert run(stops_on, 3, 1, number, gone=[1]) == [0, None, 2]


def test_a_rank_that_hangs_says_where() -> None:
    began = time.monotonic()
    with pytest.raises(RanksFailed, match=r"(?s)rank 0 was not done in time.*in sleeps"):
        run(sleeps, 2, timeout=10)  # they must have got there
    assert time.monotonic() - began < 120
