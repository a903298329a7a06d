"""How long to wait for a process that gets little of the processor."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

LOOKS = 0.25
"""Seconds between two looks at a process."""
_TIMES = 10.0
_RUNNABLE = "R"
_STOPPED = "T"


class Patience:
    """Is over when a process and its children have used `seconds` of processor time, or have waited that long for
    anything else than a processor, such as one that is stopped or that sleeps; in any case after ten times as long.

    A child that is stopped waits for a processor: its parent lets it take turns (turns.py).
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._left = seconds
        self._seen = clock()
        self._end = self._seen + _TIMES * seconds
        self._used: float | None = None

    def over(self, pid: int) -> bool:
        """To be asked every LOOKS seconds: what the process does now counts for all of the time since."""
        now = self._clock()
        passed, self._seen = now - self._seen, now
        starved, used = _state(pid)
        ran = used - self._used if self._used is not None else passed
        self._used = used
        self._left -= min(ran, passed) if starved else passed
        return self._left <= 0 or now >= self._end


def _state(pid: int) -> tuple[bool, float]:
    """Whether a process or a child of it is kept from a processor, and the seconds of processor time that they have
    used; nothing where that is not known."""
    state, used = _stat(pid)
    children = [_stat(child) for child in _children(pid)] if state != _STOPPED else []
    starved = state == _RUNNABLE or any(one in (_RUNNABLE, _STOPPED) for one, _ in children)
    return starved, used + sum(its for _, its in children)


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _stat(pid: int) -> tuple[str, float]:
    """A process's state as a letter, and the seconds of processor time that it has used; "" where that is not known."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "", 0.0
    return fields[0], (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
