"""Journals are read whole or as they grow, with half lines, damaged lines and far too much of everything."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest

from moec.errors import JournalError
from moec.journal import Failed, Follower, Other, Reading, Sample, Start, Stop, first_record, reader
from moec.journal.reader import Lines
from tests.journal import drifting

STOP = b'{"event": "stop", "time": 5}\n'


def journal(folder: Path, seconds: int = 20) -> Path:
    return drifting.write(folder / "journal.jsonl", drifting.records(seconds, 8, 2))


def test_lines_are_the_same_in_any_pieces() -> None:
    text = b"one\n\ntwo\n" + b"x" * 50 + b"\nthree\n" + b"y" * 30 + b"\nfour\nhalf"
    source = random.Random(1)
    for _ in range(200):
        lines, found, place = Lines(longest=20), [], 0
        while place < len(text):
            size = source.randint(1, 40)
            found += lines.feed(text[place : place + size])
            place += size
        assert found == [b"one", b"two", b"three", b"four"]
        assert lines.damaged == 2


def test_a_half_line_at_the_end_is_left_out(tmp_path: Path) -> None:
    path = journal(tmp_path)
    whole = list(Reading(path))
    assert len(whole) == 25
    path.write_bytes(path.read_bytes()[:-100])
    reading = Reading(path)
    assert list(reading) == whole[:-1]
    assert reading.damaged == 0


def test_damaged_lines_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    path.write_bytes(STOP + b"\0" * 100 + b"\n{}\n" + b'{"event": "sa' + STOP + STOP)
    reading = Reading(path)
    assert list(reading) == [Stop(5.0)] * 2
    assert (reading.records, reading.damaged) == (2, 3)


def test_what_was_set_aside_comes_first(tmp_path: Path) -> None:
    path = journal(tmp_path)
    whole = list(Reading(path))
    lines = path.read_bytes().splitlines(keepends=True)
    path.with_name("journal.jsonl.old").write_bytes(b"".join(lines[:10]))
    path.write_bytes(b"".join([lines[0], *lines[10:]]))
    read = list(Reading(path))
    assert [record for place, record in enumerate(read) if place != 10] == whole
    assert read[10] == whole[0]


def test_of_too_large_a_journal_the_end_is_read(tmp_path: Path) -> None:
    path = journal(tmp_path, 200)
    size, whole = path.stat().st_size, list(Reading(path))
    reading = Reading(path, largest=10_000)
    read = list(reading)
    assert read[0] == whole[0], "who it is about"
    assert read[1:] == whole[1 - len(read) :]
    assert 5 < len(read) < 40
    assert reading.left_out == size - 10_000


def test_a_follower_sees_what_is_added(tmp_path: Path) -> None:
    path = journal(tmp_path)
    follower = Follower(path, samples=5)
    first = follower.poll()
    assert isinstance(first[0], Start)
    assert [record.time for record in first] == sorted(record.time for record in first)
    assert sum(isinstance(record, Sample) for record in first) == 5
    assert follower.poll() == []
    with path.open("ab") as file:
        file.write(STOP[:10])
        file.flush()
        assert follower.poll() == []
        file.write(STOP[10:] + STOP)
        file.flush()
        assert follower.poll() == [Stop(5.0), Stop(5.0)]
    follower.close()


def test_a_follower_goes_on_where_a_journal_is_set_aside(tmp_path: Path) -> None:
    path = journal(tmp_path)
    follower = Follower(path, samples=5)
    follower.poll()
    with path.open("ab") as file:
        file.write(STOP)
    path.replace(tmp_path / "journal.jsonl.old")
    assert follower.poll() == [Stop(5.0)]
    path.write_bytes(STOP + STOP)
    assert follower.poll() == [Stop(5.0)] * 2
    path.write_bytes(STOP)
    assert follower.poll() == [Stop(5.0)], "cut short and written anew"
    path.unlink()
    assert follower.poll() == []
    follower.close()


def test_a_follower_keeps_little_of_very_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "_MOST_EVENTS", 7)
    monkeypatch.setattr(reader, "LARGEST_READ", 20_000)
    path = tmp_path / "j.jsonl"
    failures = [json.dumps({"event": "failed", "time": n, "why": "no"}) for n in range(2000)]
    path.write_text("\n".join([json.dumps(drifting.start()), *failures]) + "\n")
    follower = Follower(path, samples=5)
    start, *others = follower.poll()
    assert isinstance(start, Start)
    assert [record.time for record in others] == list(range(1993, 2000))
    assert all(isinstance(record, Failed) for record in others)
    follower.close()


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for bad in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(JournalError, match="is not a file"):
            list(Reading(bad))
        with pytest.raises(JournalError, match="is not a file"):
            Follower(bad, 5)
        assert first_record(bad) is None
    with pytest.raises(FileNotFoundError):
        list(Reading(tmp_path / "none"))
    assert first_record(tmp_path / "none") is None


def test_a_file_that_is_no_journal_has_no_records(tmp_path: Path) -> None:
    path = tmp_path / "noise"
    path.write_bytes(random.Random(2).randbytes(3_000_000))
    reading = Reading(path)
    assert list(reading) == []
    assert reading.damaged > 100
    assert not isinstance(first_record(path), Other)
