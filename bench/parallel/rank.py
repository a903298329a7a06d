"""`python -m bench.parallel.rank JOB ARGUMENTS OUT`: one rank of a job; bench.parallel.launch starts them."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from importlib import import_module
from pathlib import Path

import torch
import torch.distributed as dist

from bench import machine
from bench.machine import each_thread

TIMEOUT = timedelta(seconds=600)
"""Ranks also wait while the first one waits for a lock."""
REST = 0.25
"""Seconds."""
SLICES = Path("/proc/sys/kernel/sched_rr_timeslice_ms")


@contextmanager
def quiet(wanted: bool, lock: str | None) -> Iterator[None]:
    """Every rank's timed part, in which all of them pre-empt whatever else this machine does.

    The ranks' threads take turns, a millisecond each, at one priority: Gloo's try over and over to take a lock that a
    sending thread holds, and with precedence over it would do so for ever. Each rank keeps to one processor, which as
    many share as any other: left to itself, Linux lets three of four ranks have one for a whole call, as threads of one
    real-time priority are not moved to where fewer are. Everything must have been called once
    before: new connections need the kernel's own threads, which are pre-empted too. `lock` is as bench.machine.quiet's.
    PermissionError without root.
    """
    first = dist.get_rank() == 0
    processors = sorted(os.sched_getaffinity(0))
    own = {processors[dist.get_rank() % len(processors)]}
    with machine.quiet(lock=Path(lock) if lock and first else None):
        dist.barrier()
        slices = SLICES.read_text() if wanted and first else None
        try:
            if slices is not None:
                SLICES.write_text("1")
            if wanted:
                each_thread(lambda thread: os.sched_setaffinity(thread, own))
                each_thread(lambda thread: os.sched_setscheduler(thread, os.SCHED_RR, os.sched_param(machine.REALTIME)))
            yield
        finally:
            if wanted:
                each_thread(lambda thread: os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0)))
                each_thread(lambda thread: os.sched_setaffinity(thread, processors))
            if slices is not None:
                SLICES.write_text(slices)


@contextmanager
def below(alone: bool) -> Iterator[None]:
    """What this thread computes goes behind what others send, which needs little and at once; inside `quiet`."""
    if not alone or os.sched_getscheduler(0) != os.SCHED_RR:
        yield
        return
    os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(machine.REALTIME - 1))
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(machine.REALTIME))


def rested() -> None:
    """A barrier, and a while before it in which the ranks leave the machine to others.

    Linux takes a twentieth of each second back from whoever has real-time priority (`sched_rt_runtime_us`). What begins
    rested and ends within 0.9 s is spared.
    """
    dist.barrier()
    time.sleep(REST)
    dist.barrier()


def main() -> None:
    job, arguments, out = sys.argv[1:]
    module, _, name = job.partition(":")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=TIMEOUT)
    result = getattr(import_module(module), name)(**json.loads(arguments))
    Path(out).write_text(json.dumps(result))
    dist.barrier()
    os._exit(0)  # a clean end of process groups may wait for ranks that are gone


if __name__ == "__main__":
    main()
