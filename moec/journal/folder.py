"""Where journals lie, and whether who writes one is still there."""

from __future__ import annotations

import os
import platform
from enum import Enum
from pathlib import Path

from moec.journal.records import Start

_MOST_FILES = 4096
_SLACK = 2.0
"""Seconds by which clocks of the kernel may differ."""


class Liveness(Enum):
    """What is known of the process behind a journal."""

    ALIVE = "alive"
    DEAD = "dead"
    UNKNOWN = "unknown"


def default_folder() -> Path:
    """`$XDG_STATE_HOME/moec/journals`, or that in `~/.local/state`."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "moec" / "journals"


def journals(folder: Path) -> list[Path]:
    """The journals of a folder, the one that was written last first; none where there is no folder."""
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith(".jsonl") and entry.is_file():
                    found.append((entry.stat().st_mtime, Path(entry.path)))
    except OSError:
        return []
    return [path for _, path in sorted(found, reverse=True)[:_MOST_FILES]]


def liveness(start: Start) -> Liveness:
    """Whether the process that began the journal still runs.  Another one that got its number does not count."""
    if not start.pid or start.host not in (None, platform.node()):
        return Liveness.UNKNOWN
    try:
        os.kill(start.pid, 0)
    except (ProcessLookupError, OverflowError):
        return Liveness.DEAD
    except OSError:
        pass  # somebody else's process: it is there
    born = _born(start.pid)
    return Liveness.DEAD if born is not None and born > start.time + _SLACK else Liveness.ALIVE


def _born(pid: int) -> float | None:
    """When a process began, seconds since 1970; None where the system does not say."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime "))
        return int(boot.split()[1]) + int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, StopIteration, ValueError, IndexError):
        return None
