"""Heavy work beside running calls: Python on threads of ordinary priority, native code on one that gets what is left.

A thread of low priority that holds the interpreter's lock when the system stops it keeps every caller waiting until it
is its turn again, on a busy machine for tens of milliseconds.  So it runs nothing but native calls, which let go of the
lock.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

LOWEST = 19
"""A nice level.  SCHED_IDLE would be lower still, but callers' latencies were longer beside it, not shorter: to the
system, a processor that runs such a thread is as good as free."""

Result = TypeVar("Result")


class Run(Protocol):
    """Calls a function and gives its result, or raises what it raises."""

    def __call__(self, work: Callable[..., Result], *arguments: object) -> Result: ...


def at_once(work: Callable[..., Result], *arguments: object) -> Result:
    """Runs it on the calling thread."""
    return work(*arguments)


def background(work: Callable[[], Result], name: str) -> Future[Result]:
    """Run `work` on a thread of its own, which ends with it and keeps no process from ending.

    Of ordinary priority: what takes long in it belongs to `lowest`, or into another process.
    """
    future: Future[Result] = Future()
    threading.Thread(target=_work, args=(work, future), name=name, daemon=True).start()
    return future


@contextmanager
def lowest(name: str) -> Iterator[Run]:
    """What runs functions on a thread of the lowest nice level, one after the other, while the caller waits.

    For native calls that let go of the interpreter's lock.  A thread that lowers its priority could not raise it again
    without privileges, so this is another one, which ends with the block.
    """
    jobs: SimpleQueue[tuple[Callable[..., Any], tuple[object, ...], Future[Any]] | None] = SimpleQueue()
    threading.Thread(target=_serve, args=(jobs,), name=name, daemon=True).start()

    def run(work: Callable[..., Result], *arguments: object) -> Result:
        future: Future[Result] = Future()
        jobs.put((work, arguments, future))
        return future.result()

    try:
        yield run
    finally:
        jobs.put(None)


def _serve(jobs: SimpleQueue[tuple[Callable[..., Any], tuple[object, ...], Future[Any]] | None]) -> None:
    with contextlib.suppress(OSError):  # a sandbox may forbid it
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST)
    while (job := jobs.get()) is not None:
        work, arguments, future = job
        _end(future, work, *arguments)
        del job, work, arguments, future  # what it holds is not to live until the next one comes


def _work(work: Callable[[], Result], future: Future[Result]) -> None:
    if future.set_running_or_notify_cancel():
        _end(future, work)


def _end(future: Future[Result], work: Callable[..., Result], *arguments: object) -> None:
    try:
        result = work(*arguments)
    except Exception as error:  # noqa: BLE001  whoever asked for the result gets it
        future.set_exception(error)
    else:
        future.set_result(result)
