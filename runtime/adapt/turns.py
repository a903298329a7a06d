"""Runs a program in short turns while the threads of another process wait for processors, else without a break.

    python -P -m moec.runtime.adapt.turns PID PROGRAM [ARGUMENT ...]

A program that computes all the time, of whatever priority, keeps a processor from taking over threads that wait for
another one.  It cannot pause by itself where it is in one long native call, so this process, its parent, stops it and
lets it go on, and ends when and as it ends.  Whoever has started this one is told nothing of the stops.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
import time
from typing import NamedTuple

from moec.runtime.adapt.background import LOWEST

_WAITING = 0.2
"""Seconds in a second that others wait, all their threads together, from which on turns become short.  A call that
waits for a third process now and then is no reason."""
_SERVED = 0.02
"""Below which they end to be short: less than what a thread waits that shares its processor with them."""
_IDLE = 0.005
"""Seconds in a second that a program must run or wait for a processor to be worth stopping."""
_PR_SET_PDEATHSIG = 1


class Turn(NamedTuple):
    """Seconds to run for, and seconds to rest for then."""

    run: float
    rest: float


SHORT = Turn(0.0005, 0.0195)
"""Ends before the system looks who is next (every 4 ms at 250 ticks a second): a wait becomes longer by its length."""
WHOLE = Turn(0.05, 0.0)


def turn(now: Turn, wanted: float, waited: float, passed: float) -> Turn:
    """What suits a program that `wanted` a processor, and others who `waited` for one, for so many of the seconds
    that have `passed`."""
    enough = _SERVED if now is SHORT else _WAITING
    return SHORT if wanted > _IDLE * passed and waited > enough * passed else WHOLE


class Times(NamedTuple):
    """Seconds that threads ran, and that they waited for a processor."""

    ran: float
    waited: float


class Threads:
    """Those of a process: what they did since the last look."""

    def __init__(self, pid: int) -> None:
        self._tasks = f"/proc/{pid}/task"
        self._seen = self._read()

    @property
    def known(self) -> bool:
        """Whether the system told anything at the last look."""
        return bool(self._seen)

    def look(self) -> Times:
        """All of them together; those that have just begun count from the next look on.  Nothing of a process that is
        gone, or where the system does not tell."""
        before, self._seen = self._seen, self._read()
        both = [(before[task], now) for task, now in self._seen.items() if task in before]
        return Times(*(1e-9 * sum(now[i] - old[i] for old, now in both) for i in range(2)))

    def _read(self) -> dict[str, tuple[int, int]]:
        """Nanoseconds that each thread ran and waited."""
        found: dict[str, tuple[int, int]] = {}
        with contextlib.suppress(OSError):  # the process is gone
            for task in os.listdir(self._tasks):
                with contextlib.suppress(OSError, ValueError):  # the thread is gone, or nothing is told
                    ran, waited = _first(f"{self._tasks}/{task}/schedstat").split()[:2]
                    found[task] = int(ran), int(waited)
        return found


def _first(path: str) -> bytes:
    """Of a file of a line: several times as fast as files of Python are."""
    file = os.open(path, os.O_RDONLY)
    try:
        return os.read(file, 256)
    finally:
        os.close(file)


def main(arguments: list[str]) -> None:
    _be(os.SCHED_BATCH)
    others, program = Threads(int(arguments[0])), arguments[1:]
    if not others.known:
        os.nice(LOWEST)  # the next best
    parent, child = os.getpid(), os.fork()
    if child == 0:
        _become(program, parent)
    for end in (0, 1):  # whoever writes to the program, or reads from it, is to see that it has ended
        os.close(end)
    _end_as(_share(child, others))


def _become(program: list[str], parent: int) -> None:
    """In the child."""
    with contextlib.suppress(OSError, AttributeError):
        # Who is stopped when nobody is left to let it go on would stay so.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
    try:
        os.execvp(program[0], program)
    except OSError as error:
        os.write(2, f"{program[0]}: {error.strerror}\n".encode())
        os._exit(127)


def _share(child: int, others: Threads) -> int:
    """Until the child has ended: its status, as of `wait`."""
    own, now, looked = Threads(child), SHORT, time.monotonic()
    while True:
        time.sleep(now.run)
        if now.rest:
            os.kill(child, signal.SIGSTOP)
            _be(os.SCHED_BATCH)
            time.sleep(now.rest)
            os.kill(child, signal.SIGCONT)
            _be(os.SCHED_OTHER)
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status
        passed = time.monotonic() - looked
        if passed >= WHOLE.run:
            now = turn(now, sum(own.look()), others.look().waited, passed)
            looked = time.monotonic()


def _be(policy: int) -> None:
    """SCHED_BATCH waits until a processor changes threads anyway, SCHED_OTHER may interrupt one."""
    with contextlib.suppress(OSError):  # a sandbox may forbid it
        os.sched_setscheduler(0, policy, os.sched_param(0))


def _end_as(status: int) -> None:
    """As the child has ended."""
    if os.WIFSIGNALED(status):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with contextlib.suppress(OSError):  # that of SIGKILL cannot be set, and need not
            signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
        os.kill(os.getpid(), os.WTERMSIG(status))
    os._exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main(sys.argv[1:])
