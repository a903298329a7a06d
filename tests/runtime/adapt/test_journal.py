"""The journal's file: whole lines, a bounded size, and no harm where it cannot be written."""

from __future__ import annotations

import json
import math
import os
import stat
from pathlib import Path

import pytest

from moec.runtime.adapt.journal import Journal, default_path


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line, parse_constant=lambda name: pytest.fail(name)) for line in path.read_text().splitlines()]


def test_records_are_lines(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "a" / "b.jsonl")
    journal.write({"event": "start", "error": math.nan, "deep": {"x": [1.5, math.inf], 4: (1, 2)}})
    journal.write({"event": "stop"})
    journal.close()
    journal.write({"event": "late"})
    assert lines(journal.path) == [
        {"event": "start", "error": None, "deep": {"x": [1.5, None], "4": [1, 2]}},
        {"event": "stop"},
    ]
    assert stat.S_IMODE(journal.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(journal.path.parent.stat().st_mode) == 0o700


def test_a_large_file_is_begun_again_with_its_first_line(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j", largest=1000)
    journal.write({"event": "start", "layer": "L"})
    for number in range(200):
        journal.write({"event": "sample", "number": number})
    old, new = lines(tmp_path / "j.old"), lines(tmp_path / "j")
    assert old[0] == new[0] == {"event": "start", "layer": "L"}
    assert (tmp_path / "j").stat().st_size <= 1000 >= (tmp_path / "j.old").stat().st_size
    assert new[-1]["number"] == 199
    numbers = [record["number"] for record in (*old[1:], *new[1:])]
    assert numbers == list(range(numbers[0], 200)), "none is lost between the two"  # type: ignore[call-overload]


def test_no_place_to_write(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    journal = Journal(tmp_path / "file" / "j")
    journal.write({"event": "start"})
    assert journal.failure
    assert "is given up" in caplog.text


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk(caplog: pytest.LogCaptureFixture) -> None:
    journal = Journal(Path("/dev/full"))
    journal.write({"event": "start"})
    assert journal.failure is not None
    assert "No space left" in journal.failure
    journal.write({"event": "sample"})
    assert len(caplog.records) == 1


def test_default_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    one, other = default_path("../La yer"), default_path("../La yer")
    assert one != other
    assert one.parent == tmp_path / "moec" / "journals"
    assert one.name.startswith("___La_yer-")
    monkeypatch.delenv("XDG_STATE_HOME")
    assert default_path("L").parent == Path.home() / ".local" / "state" / "moec" / "journals"
