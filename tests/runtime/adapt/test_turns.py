"""Programs that take turns with others: when, and that none stays stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

from moec.runtime.adapt import turns
from moec.runtime.adapt.patience import _children, _stat
from moec.runtime.adapt.turns import SHORT, WHOLE, Threads, turn

PATIENCE = 200.0
COMPUTING = "while True: pass"


@pytest.mark.parametrize(
    ("wanted", "waited", "passed", "suits"),
    [
        (1.0, 0.0, 1.0, WHOLE),
        (1.0, 2.0, 1.0, SHORT),
        (0.1, 0.9, 1.0, SHORT),
        (0.0, 2.0, 1.0, WHOLE),
        (0.1, 0.015, 1.0, WHOLE),
        (0.01, 0.09, 0.1, SHORT),
        (0.0, 0.0, 0.0, WHOLE),
    ],
    ids=["nobody waits", "two wait", "one waits", "nothing to do", "hardly", "a short look", "no time"],
)
@pytest.mark.parametrize("now", [SHORT, WHOLE], ids=["short", "whole"])
def test_turns_are_short_where_others_wait(
    now: turns.Turn, wanted: float, waited: float, passed: float, suits: turns.Turn
) -> None:
    assert turn(now, wanted, waited, passed) is suits


def test_turns_do_not_become_short_because_of_a_third() -> None:
    assert turn(WHOLE, 1.0, 0.15, 1.0) is WHOLE


def test_short_turns_do_not_end_because_they_are_short() -> None:
    share = SHORT.run / (SHORT.run + SHORT.rest)
    assert turn(SHORT, share, share, 1.0) is SHORT, "a thread that shares its processor waits for as long as they run"


def test_what_threads_did_is_counted_since_the_last_look() -> None:
    threads = Threads(os.getpid())
    if not threads.known:
        pytest.skip("the system tells nothing about waits")
    end = time.thread_time() + 0.05
    while time.thread_time() < end:
        pass
    assert threads.look().ran >= 0.05
    assert threads.look().ran < 0.05


def test_a_process_that_is_gone_did_nothing() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert Threads(process.pid).look() == (0, 0)


def started(*program: str, beside: int | None = None) -> subprocess.Popen[bytes]:
    command = (sys.executable, "-P", "-m", turns.__name__, str(beside or os.getpid()), *program)
    return subprocess.Popen(command, process_group=0, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def wait_until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize(("how", "status"), [("sys.exit(3)", 3), ("os.abort()", -6), ("os.kill(os.getpid(), 9)", -9)])
def test_it_ends_as_the_program_does(how: str, status: int) -> None:
    process = started(sys.executable, "-c", f"import os, sys; {how}")
    process.communicate()
    assert process.returncode == status


def test_a_program_that_computes_stops_while_others_wait() -> None:
    """One processor for both: a thread that computes here waits for it."""
    program = f"import os; os.sched_setaffinity(0, {{{min(os.sched_getaffinity(0))}}})\n{COMPUTING}"
    other = subprocess.Popen([sys.executable, "-c", program])
    process = started(sys.executable, "-c", program, beside=other.pid)
    try:
        if not Threads(other.pid).known:
            pytest.skip("the system tells nothing about waits")
        seen = set[str]()

        def both() -> bool:
            seen.update(_stat(child)[0] for child in _children(process.pid))
            return {"R", "T"} <= seen

        wait_until(both)
        other.kill()
        other.wait()
        (child,) = _children(process.pid)
        states: list[str] = []

        def goes_on() -> bool:
            states.append(_stat(child)[0])
            return "T" not in states[-100:] and len(states) >= 100

        wait_until(goes_on)
    finally:
        for one in (other, process):
            one.kill()
            one.communicate()


def test_a_stopped_program_ends_with_the_one_that_would_let_it_go_on() -> None:
    process = started(sys.executable, "-c", COMPUTING)
    wait_until(lambda: len(_children(process.pid)) == 1)
    (child,) = _children(process.pid)
    wait_until(lambda: _stat(child)[1] > 0.1)  # it has become the program
    os.kill(process.pid, signal.SIGSTOP)
    os.kill(child, signal.SIGSTOP)
    wait_until(lambda: _stat(child)[0] == "T")
    process.kill()
    process.communicate()  # nobody holds its output any more
    wait_until(lambda: _stat(child)[0] in ("", "Z"))


def test_where_nobody_knows_who_waits_it_has_the_lowest_priority() -> None:
    nobody = subprocess.Popen([sys.executable, "-c", ""])
    nobody.wait()
    process = started(sys.executable, "-c", "import os; print(os.nice(0))", beside=nobody.pid)
    assert process.communicate()[0] == b"19\n"


def test_whoever_reads_the_program_sees_its_end() -> None:
    process = started(sys.executable, "-c", "print('here')")
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(process.communicate()[0]))
    reader.start()
    reader.join(PATIENCE)
    assert found == [b"here\n"]
