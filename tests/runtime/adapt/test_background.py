"""Work in the background: who runs it, at which priority, and what becomes of its errors."""

from __future__ import annotations

import os
import threading
import time

import pytest

from moec.runtime.adapt.background import LOWEST, at_once, background, lowest


def nice() -> tuple[int, int]:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id()), threading.get_ident()


def test_python_keeps_its_priority_and_native_code_has_the_lowest() -> None:
    own = nice()

    def work() -> tuple[tuple[int, int], tuple[int, int], tuple[int, int], tuple[int, int]]:
        with lowest("low") as run:
            return nice(), run(nice), run(nice), at_once(nice)

    first, low, again, direct = background(work, "work").result(10)
    assert first[0] == direct[0] == own[0]
    assert first[1] != own[1]
    assert low == again
    assert low[0] == LOWEST
    assert low[1] != first[1]


def test_errors_come_to_whoever_asked() -> None:
    with lowest("low") as run:
        with pytest.raises(ZeroDivisionError):
            run(divmod, 1, 0)
        assert run(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        background(lambda: 1 // 0, "work").result(10)


def test_the_thread_ends_with_the_block() -> None:
    with lowest("to-be-gone") as run:
        run(len, "")
    end = time.monotonic() + 10
    while any(thread.name == "to-be-gone" for thread in threading.enumerate()) and time.monotonic() < end:
        time.sleep(0.01)
    assert all(thread.name != "to-be-gone" for thread in threading.enumerate())
