"""Where journals lie and whether their writers live."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import pytest

from moec.journal import Liveness, Start, default_folder, journals, liveness


def test_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "moec" / "journals"
    monkeypatch.setenv("XDG_STATE_HOME", "")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert default_folder() == Path("/home/somebody/.local/state/moec/journals")


def test_the_latest_comes_first(tmp_path: Path) -> None:
    assert journals(tmp_path / "none") == []
    for age, name in enumerate(("c.jsonl", "a.jsonl", "b.jsonl", "notes.txt", "d.jsonl.old")):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    (tmp_path / "folder.jsonl").mkdir()
    assert [path.name for path in journals(tmp_path)] == ["c.jsonl", "a.jsonl", "b.jsonl"]


def test_liveness() -> None:
    def of(pid: int | None, began: float | None = None, host: str | None = None) -> Liveness:
        return liveness(Start(time.time() if began is None else began, "layer", pid=pid, host=host))

    assert of(os.getpid()) is Liveness.ALIVE
    assert of(os.getpid(), host=platform.node()) is Liveness.ALIVE
    assert of(os.getpid(), host="elsewhere.example") is Liveness.UNKNOWN
    assert of(None) is Liveness.UNKNOWN
    assert of(0) is Liveness.UNKNOWN
    assert of(2**60) is Liveness.DEAD
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert of(ended.pid) is Liveness.DEAD


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the system does not say when processes began")
def test_another_process_with_the_same_number_does_not_count() -> None:
    assert liveness(Start(1000.0, "layer", pid=os.getpid())) is Liveness.DEAD
