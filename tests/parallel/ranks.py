"""Runs a function on real ranks: processes of this machine that talk by `torch.distributed` (Gloo).

    def doubled(factor):                              # at the top of a module: it goes to the ranks by its name
        mine = torch.tensor([factor * dist.get_rank()])
        dist.all_reduce(mine)
        return mine

    assert [int(sum) for sum in run(doubled, 3, 2)] == [6, 6, 6]

Ranks are forked from a process that has imported torch already, so one costs some 50 ms and no test sees what another
left behind.  They end with the test run, whatever happens to it.
"""

from __future__ import annotations

import ctypes
import faulthandler
import importlib
import io
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Collection
from contextlib import ExitStack
from datetime import timedelta
from functools import cache
from multiprocessing import connection
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

PRELOADED = (
    "moec.runtime",
    "torch.distributed.checkpoint",
    "torch.distributed.tensor",
    "torch._dynamo",  # what optimizers import in their first step
)
ROOT = Path(__file__).resolve().parents[2]
GRACE = 3.0  # seconds that the others get to end once a rank has failed: their own errors say more than a kill
LAST_WORDS = 20.0  # seconds that a rank gets at most to write where each of its threads stands
PAUSE = 0.5  # seconds without more of them, by which it is thought to be done


class RanksFailed(AssertionError):
    """Some rank raised, died, or was not done in time.  The message has each rank's traceback and output."""


def run(
    function: Callable[..., object],
    world: int,
    *arguments: object,
    timeout: float = 400.0,
    collective: float = 120.0,
    gone: Collection[int] = (),
    threads: int = 1,
    store_on: int | None = None,
) -> list[Any]:
    """`function(*arguments)` on each of `world` ranks at once; what they returned, in rank order.

    The default process group is up (Gloo, its operations limited to `collective` seconds).  `function` and `arguments`
    go there by pickle; back come tensors and plain containers of plain values (what `torch.load(weights_only=True)`
    takes).  Ranks in `gone` may die or stop: nobody waits for them, and their result is None.  The store of the group
    lives in the calling process, as an agent of `torchrun` holds it, or on rank `store_on`.
    `RanksFailed` if another rank raises or dies, or after `timeout` seconds; then nothing of them is left.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ranks_")))
        store = None if store_on is not None else _new_store()
        port = None if store is None else store.port
        work = pickle.dumps((_address(function), arguments))
        ranks = []
        for rank in range(world):
            ours, theirs = multiprocessing.Pipe()
            stack.enter_context(ours)
            setup = (rank, world, port, store_on, collective, threads, str(folder / f"{rank}.txt"))
            process = _context().Process(target=_rank, args=(theirs, setup, work), daemon=True)
            process.start()
            theirs.close()
            stack.callback(process.join)
            stack.callback(process.kill)
            ranks.append(_Rank(rank, process, ours, folder / f"{rank}.txt"))
        if store_on is not None:
            _tell_port(ranks, store_on, timeout)
        _wait([rank for rank in ranks if rank.number not in gone], time.monotonic() + timeout)
        failed = [rank for rank in ranks if rank.number not in gone and rank.failed is not None]
        if failed:
            _ask_where(ranks)
            # What ended by itself says most, and the end of a report is what is seen of it.
            told = sorted(ranks, key=lambda rank: rank.failed is not None and rank.done)
            raise RanksFailed("\n".join(["some ranks failed", *(rank.report() for rank in told)]))
        return [rank.result for rank in ranks]


class _Rank:
    """The caller's side of a rank."""

    def __init__(self, number: int, process: ForkServerProcess, pipe: Any, output: Path) -> None:
        self.number, self.process, self.pipe, self.output = number, process, pipe, output
        self.done = False
        self.failed: str | None = None
        self.result: Any = None

    def receive(self) -> None:
        """Take the answer, or find that the process is gone without one."""
        self.done = True
        try:
            ended, answer = self.pipe.recv()
        except EOFError:
            self.process.join(60)
            self.failed = f"ended without an answer, with exit code {self.process.exitcode}"
            return
        if ended:
            self.result = torch.load(io.BytesIO(answer), weights_only=True)
        else:
            self.failed = answer

    def ask_where(self) -> bool:
        """Whether it can be asked."""
        if self.done or not self.process.is_alive() or self.process.pid is None:
            return False
        os.kill(self.process.pid, signal.SIGUSR1)
        return True

    def written(self) -> str:
        return self.output.read_text(errors="replace") if self.output.exists() else ""

    def report(self) -> str:
        state = self.failed or ("returned" if self.done else "was not waited for")
        return f"--- rank {self.number} {state.rstrip()}\n{self.written()}".rstrip()


def _ask_where(ranks: list[_Rank]) -> None:
    """Have each rank that still runs write where it stands; one that is stopped does not."""
    before = {rank.number: rank.written() for rank in ranks}
    asked = [rank for rank in ranks if rank.ask_where()]
    deadline, said = time.monotonic() + LAST_WORDS, before
    while asked and time.monotonic() < deadline:
        time.sleep(PAUSE)
        now = {rank.number: rank.written() for rank in ranks}
        if now == said and all(now[rank.number] != before[rank.number] for rank in asked):
            return
        said = now


def _wait(ranks: list[_Rank], deadline: float) -> None:
    """Until all of `ranks` are done, or `deadline`, which comes nearer when one fails."""
    while waiting := [rank for rank in ranks if not rank.done]:
        ready = connection.wait([rank.pipe for rank in waiting], max(0.0, deadline - time.monotonic()))
        if not ready:
            for rank in waiting:
                rank.failed = "was not done in time"
            return
        for rank in waiting:
            if rank.pipe in ready:
                rank.receive()
                if rank.failed:
                    deadline = min(deadline, time.monotonic() + GRACE)


def _new_store() -> dist.TCPStore:
    return dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


def _tell_port(ranks: list[_Rank], host: int, timeout: float) -> None:
    """Pass the port of the store that rank `host` opened on to the others."""
    if not ranks[host].pipe.poll(timeout):
        raise RanksFailed(f"rank {host} opened no store\n{ranks[host].report()}")
    port = ranks[host].pipe.recv()
    for rank in ranks:
        if rank.number != host:
            rank.pipe.send(port)


@cache
def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    return context


def _address(function: Callable[..., object]) -> tuple[str, str]:
    """Where a rank finds `function`.  pytest names a module after the folders with an __init__.py only."""
    path = Path(function.__code__.co_filename).resolve()
    if path.is_relative_to(ROOT):
        return ".".join(path.relative_to(ROOT).with_suffix("").parts), function.__qualname__
    return function.__module__, function.__qualname__


def _function(address: tuple[str, str]) -> Callable[..., object]:
    module, name = address
    found: Callable[..., object] = getattr(importlib.import_module(module), name)
    return found


def _rank(pipe: Any, setup: tuple[int, int, int | None, int | None, float, int, str], work: bytes) -> None:
    """The life of a rank."""
    rank, world, port, store_on, collective, threads, output = setup
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: end with the process that forks the ranks
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    faulthandler.register(signal.SIGUSR1, file=2, all_threads=True)
    torch.set_num_threads(threads)
    # Tensors without values are full of NaN: nothing that was not written may be read, or change what is.
    torch.use_deterministic_algorithms(True, warn_only=True)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    try:
        if store_on == rank:
            store = _new_store()
            pipe.send(store.port)
        else:
            store = dist.TCPStore("127.0.0.1", pipe.recv() if port is None else port, is_master=False)
        limit = timedelta(seconds=collective)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=limit)
        address, arguments = pickle.loads(work)
        answer = io.BytesIO()
        torch.save(_function(address)(*arguments), answer)
        pipe.send((True, answer.getvalue()))
    except BaseException:  # noqa: BLE001  whatever ends a rank is the test's to see
        pipe.send((False, traceback.format_exc()))
    sys.stdout.flush()
    sys.stderr.flush()
    # No clean end of the group, which may hang on a rank that is gone.  A rank stays until the caller lets go of all:
    # others may still read what it has sent, or need its store.
    pipe.poll(None)
    os._exit(0)
