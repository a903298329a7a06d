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


class Patience:
    """Is over when a process has used `seconds` of processor time, or has waited that long for anything else than a
    processor, such as one that is stopped or that sleeps; in any case after ten times as long."""

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
        state, used = _state(pid)
        ran = used - self._used if self._used is not None else passed
        self._used = used
        self._left -= min(ran, passed) if state == _RUNNABLE else passed
        return self._left <= 0 or now >= self._end


def _state(pid: int) -> tuple[str, float]:
    """A process's state as a letter, and the seconds of processor time that it has used; "" where that is not known."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "", 0.0
    return fields[0], (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
