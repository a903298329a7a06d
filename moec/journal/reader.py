"""Reads journals: whole, or as they grow.  A half line at the end is being written, or its writer died."""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from moec.errors import JournalError
from moec.journal.parsing import parse
from moec.journal.records import Record, Start

LARGEST_READ = 256 * 2**20
"""Bytes of one file that are read; of a larger one the last."""
LONGEST_LINE = 2**18
_PIECE = 2**20
_MOST_EVENTS = 10_000
_SAMPLE = b'{"event": "sample"'


class Lines:
    """Cuts what is fed to it into lines.

    damaged  lines so far that were too long
    """

    def __init__(self, longest: int = LONGEST_LINE) -> None:
        self.damaged = 0
        self._longest = longest
        self._half = b""
        self._skipping = False

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that have an end now, without empty ones."""
        *whole, half = (self._half + data).split(b"\n")
        if self._skipping and whole:
            self._skipping = False
            del whole[0]
        if len(half) > self._longest:
            self.damaged += not self._skipping
            self._skipping, half = True, b""
        elif self._skipping:
            half = b""
        self._half = half
        kept = [line for line in whole if len(line) <= self._longest]
        self.damaged += len(whole) - len(kept)
        return [line for line in kept if line.strip()]


class Reading:
    """The records of a journal, oldest first, with what was set aside as `NAME.old` before them.  Iterate once.

    records   how many were read
    damaged   lines that are no records
    left_out  bytes that were not read, because there are too many
    """

    def __init__(self, path: str | Path, largest: int = LARGEST_READ) -> None:
        self.path = Path(path)
        self.records = self.damaged = self.left_out = 0
        self._largest = largest

    def __iter__(self) -> Iterator[Record]:
        """Raises JournalError for what is no file, OSError."""
        older = self.path.with_name(self.path.name + ".old")
        for path in (older, self.path) if older.is_file() else (self.path,):
            with open_journal(path) as file:
                yield from self._read(file)

    def _read(self, file: BinaryIO) -> Iterator[Record]:
        lines = Lines()
        skip = max(os.fstat(file.fileno()).st_size - self._largest, 0)
        if skip:
            yield from self._records(Lines().feed(file.readline(LONGEST_LINE)))  # who it is about
            self.left_out += skip
            file.seek(skip)
            file.readline(LONGEST_LINE)
        left = self._largest
        while left > 0 and (data := file.read(min(_PIECE, left))):
            left -= len(data)
            yield from self._records(lines.feed(data))
        self.damaged += lines.damaged

    def _records(self, lines: list[bytes]) -> Iterator[Record]:
        for line in lines:
            record = parse(line)
            if record is None:
                self.damaged += 1
            else:
                self.records += 1
                yield record


class Follower:
    """A journal that is still being written: `poll` gives what is new.

    The first time that is everything, apart from samples before the last `samples` ones, and from what nobody reads:
    of very many events there are the last, and how the adaptation began.
    """

    def __init__(self, path: str | Path, samples: int) -> None:
        """Raises JournalError for what is no file, OSError."""
        self.path = Path(path)
        self.damaged = 0
        self._samples = samples
        self._file = open_journal(self.path)
        self._lines = Lines()
        self._first = self._skip()

    def poll(self) -> list[Record]:
        """The records since the last time.  A journal that is gone has no more."""
        records, self._first = self._first + self._rest(), []
        if self._begun_again():
            self._file.close()
            self._file, self._lines = open_journal(self.path), Lines()
            records += self._rest()
        return records

    def close(self) -> None:
        self._file.close()

    def _skip(self) -> list[Record]:
        """Leave out the beginning of a file that is too large, apart from its first record."""
        size = os.fstat(self._file.fileno()).st_size
        if size <= LARGEST_READ:
            return []
        first = parse(self._file.readline(LONGEST_LINE))
        self._file.seek(size - LARGEST_READ)
        self._file.readline(LONGEST_LINE)
        return [] if first is None else [first]

    def _rest(self) -> list[Record]:
        samples: deque[tuple[int, bytes]] = deque(maxlen=self._samples)
        events: deque[tuple[int, Record]] = deque(maxlen=_MOST_EVENTS)
        start: tuple[int, Record] | None = None
        number = 0
        while data := self._file.read(_PIECE):
            for line in self._lines.feed(data):
                number += 1
                if line.startswith(_SAMPLE):  # parsed when it is known to be among the last
                    samples.append((number, line))
                elif (record := self._parse(line)) is not None:
                    events.append((number, record))
                    start = events[-1] if isinstance(record, Start) else start
        sampled = ((place, self._parse(line)) for place, line in samples)
        found = [*events, *((place, record) for place, record in sampled if record is not None)]
        if start is not None and start[0] < events[0][0]:
            found.append(start)
        return [record for _, record in sorted(found, key=lambda one: one[0])]

    def _parse(self, line: bytes) -> Record | None:
        record = parse(line)
        self.damaged += record is None
        return record

    def _begun_again(self) -> bool:
        here = os.fstat(self._file.fileno())
        try:
            there = self.path.stat()
        except OSError:
            return False
        return (here.st_dev, here.st_ino) != (there.st_dev, there.st_ino) or there.st_size < self._file.tell()


def first_record(path: Path) -> Record | None:
    """The first record of a journal; None where there is none, or no file that can be read."""
    try:
        with open_journal(path) as file:
            return parse(file.readline(LONGEST_LINE))
    except (OSError, JournalError):
        return None


def open_journal(path: Path) -> BinaryIO:
    """Raises JournalError for what is no file (opening a pipe would wait for its writer), OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    file = os.fdopen(descriptor, "rb") if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
    if file is None:
        os.close(descriptor)
        raise JournalError(f"{path} is not a file")
    return file
