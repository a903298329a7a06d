"""What is known of an adaptation from its journal so far, and which adaptations there are."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from enum import Enum
from pathlib import Path

from moec.cli.wording import joined
from moec.errors import JournalError
from moec.journal import (
    Follower,
    Liveness,
    Record,
    Sample,
    Start,
    Stop,
    default_folder,
    first_record,
    journals,
    liveness,
)

_SAMPLES = 240
_EVENTS = 200
_SILENT = 5.0
"""Seconds without a sample, after which a process that runs is called silent."""
_RESCAN = 2.0


class Status(Enum):
    """What an adaptation is doing."""

    RUNNING = "running"
    SILENT = "silent"
    STOPPED = "stopped"
    DIED = "its process died"
    UNKNOWN = "of another machine"


class Watched:
    """One adaptation.  `poll` takes in what its journal has got.

    start    how it began
    samples  the last few minutes, oldest first
    events   the last ones, oldest first
    """

    def __init__(self, path: Path) -> None:
        """Raises JournalError, OSError."""
        self.path = path
        self.start: Start | None = None
        self.samples: deque[Sample] = deque(maxlen=_SAMPLES)
        self.events: deque[Record] = deque(maxlen=_EVENTS)
        self._stopped = False
        self._follower = Follower(path, _SAMPLES)

    @property
    def damaged(self) -> int:
        """Lines that are no records."""
        return self._follower.damaged

    @property
    def foreign(self) -> bool:
        """Whether it holds something, and no record."""
        return not (self.start or self.samples or self.events) and self.path.stat().st_size > 0

    @property
    def moves(self) -> bool:
        """Whether this is about experts that move between ranks: nothing is written while they stay."""
        return self.start is not None and bool(self.start.ranks)

    @property
    def last(self) -> float:
        """When the last record was written; 0 before the first."""
        return max((records[-1].time for records in (self.samples, self.events) if records), default=0.0)

    def poll(self) -> None:
        for record in self._follower.poll():
            self._take(record)

    def status(self, now: float) -> Status:
        """What it is doing at the time `now`."""
        if self._stopped:
            return Status.STOPPED
        alive = Liveness.UNKNOWN if self.start is None else liveness(self.start)
        if alive is Liveness.DEAD:
            return Status.DIED
        if now - self.last <= _SILENT or (self.moves and alive is Liveness.ALIVE):
            return Status.RUNNING
        return Status.SILENT if alive is Liveness.ALIVE else Status.UNKNOWN

    def close(self) -> None:
        self._follower.close()

    def _take(self, record: Record) -> None:
        if isinstance(record, Sample):
            self.samples.append(record)
            return
        if isinstance(record, Start):
            if record == self.start:
                return  # the journal was set aside and begun again
            alike = (sample for sample in self.samples if len(sample.load) == record.experts)
            self.samples = deque(alike, maxlen=_SAMPLES)  # another run of the same layer is worth seeing
            self.start, self._stopped = record, False
        elif isinstance(record, Stop):
            self._stopped = True
        self.events.extend(joined([*([self.events.pop()] if self.events else []), record]))


class Fleet:
    """The adaptations to show: those of the given journals and processes, by default all that run on this machine."""

    def __init__(self, targets: Sequence[str]) -> None:
        """targets: journals or process ids.  Raises JournalError where there is nothing to show, OSError."""
        self.watched: list[Watched] = []
        self._folder = default_folder()
        self._pids = {int(target) for target in targets if _is_pid(target)}
        self._all = not targets
        self._starts: dict[Path, Start | None] = {}
        self._scanned = float("-inf")
        for target in targets:
            if not _is_pid(target):
                self.watched.append(Watched(Path(target)))
        self.refresh(0.0)
        for one in self.watched:
            if one.foreign:
                raise JournalError(f"{one.path} is no journal of an adapting layer: it has no record")
        if not self.watched:
            raise JournalError(self._nothing())

    def refresh(self, now: float) -> None:
        """Take in what is new at the time `now` (seconds, of any clock that does not go back)."""
        if now - self._scanned >= _RESCAN:
            self._scanned = now
            self._scan()
        for one in self.watched:
            one.poll()

    def close(self) -> None:
        for one in self.watched:
            one.close()

    def _scan(self) -> None:
        """Find adaptations that have begun.  One that was found stays, so that a person sees how it ended."""
        if not (self._all or self._pids):
            return
        shown = {one.path for one in self.watched}
        for path in journals(self._folder):
            if path not in self._starts or self._starts[path] is None:
                record = first_record(path)
                self._starts[path] = record if isinstance(record, Start) else None
            start = self._starts[path]
            if path not in shown and start is not None and self._wanted(start):
                one = Watched(path)
                one.poll()
                if self._pids or one.status(0.0) is not Status.STOPPED:
                    self.watched.append(one)
                else:
                    one.close()
                    self._starts[path] = replace(start, pid=None)
        self.watched.sort(key=lambda one: (one.start.layer if one.start else "", one.path.name))

    def _wanted(self, start: Start) -> bool:
        return start.pid in self._pids if self._pids else liveness(start) is Liveness.ALIVE

    def _nothing(self) -> str:
        if self._pids:
            names = ", ".join(map(str, sorted(self._pids)))
            return f"no journal in {self._folder} is of process {names}"
        latest = next(iter(journals(self._folder)), None)
        if latest is None:
            return f"no layer adapts: {self._folder} has no journals. `layer.adapt()` writes one there"
        return f"no layer adapts now. The last journal is {latest}: give its path to see how it ended"


def _is_pid(target: str) -> bool:
    return target.isascii() and target.isdecimal() and not Path(target).exists()
