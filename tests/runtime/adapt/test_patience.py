"""Waiting for a process that is starved is not waiting for one that hangs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from moec.runtime.adapt import patience
from moec.runtime.adapt.patience import Patience


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sleeper() -> Iterator[int]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    _wait_for(process.pid, "S")
    yield process.pid
    process.kill()
    process.wait()


def _wait_for(pid: int, state: str) -> None:
    """Until the process has been in this state for a while, not just on its way."""
    end, seen = time.monotonic() + 60, 0
    while seen < 20 and time.monotonic() < end:
        seen = seen + 1 if patience._stat(pid)[0] == state else 0
        time.sleep(0.01)


def looks(waiting: Patience, clock: Clock, pid: int, most: int = 200) -> int:
    """How many seconds of the clock it takes until it is over."""
    while not waiting.over(pid) and clock.now < most:
        clock.now += 1
    return round(clock.now)


def test_a_process_that_waits_or_is_stopped_has_used_its_time(clock: Clock, sleeper: int) -> None:
    assert looks(Patience(5, clock), clock, sleeper) == 5
    os.kill(sleeper, signal.SIGSTOP)
    _wait_for(sleeper, "T")
    clock.now = 0
    assert looks(Patience(5, clock), clock, sleeper) == 5


def test_a_process_that_is_kept_from_the_processor_has_more(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    used = iter(n / 4 for n in range(1000))
    monkeypatch.setattr(patience, "_state", lambda pid: (True, next(used)))
    assert looks(Patience(5, clock), clock, 0) in range(18, 24), "a quarter of each second was its own"
    monkeypatch.setattr(patience, "_state", lambda pid: (True, 0.0))
    clock.now = 0
    assert looks(Patience(5, clock), clock, 0) == 50, "in any case it ends"


def test_a_child_that_is_stopped_waits_for_its_turn(clock: Clock) -> None:
    script = "import os, signal, sys; child = os.fork(); child or os.kill(os.getpid(), signal.SIGSTOP); os.wait()"
    process = subprocess.Popen([sys.executable, "-c", script], process_group=0)
    try:
        deadline = time.monotonic() + 60
        while [patience._stat(child)[0] for child in patience._children(process.pid)] != ["T"]:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert looks(Patience(5, clock), clock, process.pid) == 50, "in any case it ends"
        os.kill(process.pid, signal.SIGSTOP)
        _wait_for(process.pid, "T")
        clock.now = 0
        assert looks(Patience(5, clock), clock, process.pid) == 5, "nobody lets the child go on"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_process_that_is_gone_is_not_waited_for_longer(clock: Clock) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert looks(Patience(5, clock), clock, process.pid) == 5
