"""`python -m bench.parallel.rank JOB ARGUMENTS OUT`: one rank of a job; bench.parallel.launch starts them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from importlib import import_module
from pathlib import Path

import torch
import torch.distributed as dist

from bench import machine
from bench.machine import each_thread

TIMEOUT = timedelta(seconds=120)
SLICES = Path("/proc/sys/kernel/sched_rr_timeslice_ms")


@contextmanager
def quiet(wanted: bool, lock: str | None) -> Iterator[None]:
    """Every rank's timed part, in which all of them pre-empt whatever else this machine does.

    The ranks' threads take turns, a millisecond each, at one priority: Gloo's try over and over to take a lock that a
    sending thread holds, and with precedence over it would do so for ever. Everything must have been called once
    before: new connections need the kernel's own threads, which are pre-empted too. `lock` is as bench.machine.quiet's.
    PermissionError without root.
    """
    first = dist.get_rank() == 0
    with machine.quiet(lock=Path(lock) if lock and first else None):
        dist.barrier()
        slices = SLICES.read_text() if wanted and first else None
        try:
            if slices is not None:
                SLICES.write_text("1")
            if wanted:
                each_thread(lambda thread: os.sched_setscheduler(thread, os.SCHED_RR, os.sched_param(machine.REALTIME)))
            yield
        finally:
            if wanted:
                each_thread(lambda thread: os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0)))
            if slices is not None:
                SLICES.write_text(slices)


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
