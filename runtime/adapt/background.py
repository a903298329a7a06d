"""Heavy work beside running calls: on a thread that gets what they leave of the processor."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

_LOWEST = 19

Result = TypeVar("Result")


def low(work: Callable[[], Result], name: str) -> Future[Result]:
    """Run `work` on a thread of its own, of the lowest nice level, which ends with it and keeps no process from ending.

    For native calls that take long and let go of the interpreter's lock.  Python between them should be little: while
    it runs, callers may wait for a thread of low priority.  That is also why this is no SCHED_IDLE thread (which a busy
    machine may stop for good), and why the controller's own thread keeps its priority: an unprivileged thread that
    lowers it once cannot raise it again.
    """
    future: Future[Result] = Future()
    threading.Thread(target=_work, args=(work, future), name=name, daemon=True).start()
    return future


def _work(work: Callable[[], Result], future: Future[Result]) -> None:
    with contextlib.suppress(OSError):  # a sandbox may forbid it
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST)
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(work())
    except Exception as error:  # noqa: BLE001  whoever asked for the result gets it
        future.set_exception(error)
