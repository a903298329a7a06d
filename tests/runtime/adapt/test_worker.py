"""The background compiler: whatever it does, the caller gets an answer, and the next job a compiler that works."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from moec.artifact.specialisation import Specialisation
from moec.errors import CompilerError, CompilerMissing
from moec.runtime.adapt import worker as worker_module
from moec.runtime.adapt.patience import _children
from moec.runtime.adapt.worker import Job, Worker

FAKE = (sys.executable, str(Path(__file__).parent / "fake_compiler.py"))
PATIENCE = 200.0
"""Seconds: what gets only what others leave of the processors may begin late."""


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker(timeout=PATIENCE, command=FAKE)
    yield made
    made.close()


def job(name: str, folder: Path) -> Job:
    return Job(folder / "base.so", Specialisation(name), "generic", folder / f"{name}.so")


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for(path: Path) -> None:
    """Until a job has begun, which writes that."""
    deadline = time.monotonic() + PATIENCE
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_one_process_that_interrupts_nobody_does_all_jobs(worker: Worker, tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert 0 < worker.compile(job(name, tmp_path)) < PATIENCE
    first, second = ((tmp_path / f"{name}.so").read_text().split() for name in "ab")
    assert worker.pid is not None
    assert first == second == [str(child) for child in (*_children(worker.pid), os.SCHED_BATCH)]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("crash", "was ended by SIGSEGV: Segmentation something"),
        ("leave", "ended with status 3"),
        ("refuse", "it cannot be done"),
        ("nonsense", "answered b'nonsense"),
        ("stale", "answered"),
    ],
)
def test_misbehaviour_is_an_error_and_the_next_job_works(worker: Worker, tmp_path: Path, name: str, why: str) -> None:
    with pytest.raises(CompilerError, match=why):
        worker.compile(job(name, tmp_path))
    worker.compile(job("a", tmp_path))
    assert (tmp_path / "a.so").exists()


def test_a_job_that_takes_too_long_is_ended(worker: Worker, tmp_path: Path) -> None:
    worker.compile(job("a", tmp_path))
    pid = worker.pid
    assert pid is not None
    worker._timeout = 0.5  # the start of the process may have taken longer
    with pytest.raises(CompilerError, match=r"longer than 0\.5 s"):
        worker.compile(job("hang", tmp_path))
    assert not alive(pid)
    assert worker.pid is None


def test_a_process_that_never_gets_ready_is_ended() -> None:
    with pytest.raises(CompilerError, match=r"longer than 0\.5 s"):
        Worker(timeout=0.5, command=(*FAKE, "--silent")).compile(job("a", Path()))


def test_it_can_be_started_before_the_first_job(worker: Worker, tmp_path: Path) -> None:
    worker.start()
    pid = worker.pid
    assert pid is not None
    worker.start()
    worker.compile(job("a", tmp_path))
    assert worker.pid == pid


def test_one_that_was_started_for_nothing_ends() -> None:
    worker = Worker(timeout=PATIENCE, idle=0.2, command=FAKE)
    worker.start()
    deadline = time.monotonic() + PATIENCE
    while worker.pid is not None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert worker.pid is None


def test_being_killed_from_outside_is_reported(worker: Worker, tmp_path: Path) -> None:
    worker.compile(job("a", tmp_path))
    pid = worker.pid
    assert pid is not None

    def kill() -> None:
        wait_for(tmp_path / "hang.so")
        os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    with pytest.raises(CompilerError, match="SIGKILL"):
        worker.compile(job("hang", tmp_path))
    thread.join()


def test_closing_ends_a_job_in_another_thread(worker: Worker, tmp_path: Path) -> None:
    failures = []

    def work() -> None:
        try:
            worker.compile(job("hang", tmp_path))
        except CompilerError as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    wait_for(tmp_path / "hang.so")
    worker.close()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert len(failures) == 1


def test_an_idle_process_ends(tmp_path: Path) -> None:
    worker = Worker(timeout=PATIENCE, idle=0.2, command=FAKE)
    worker.compile(job("a", tmp_path))
    pid = int((tmp_path / "a.so").read_text().split()[0])  # the process may be gone already
    deadline = time.monotonic() + PATIENCE
    while (worker.pid is not None or alive(pid)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive(pid)
    worker.compile(job("b", tmp_path))
    worker.close()


def test_no_compiler_is_an_error_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(worker_module, "_NEEDED", ("no_such_compiler",))
    with pytest.raises(CompilerMissing, match=r"no_such_compiler\): pip install"):
        Worker().compile(job("a", tmp_path))


def test_a_program_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CompilerError, match=r"ended with status 127: /no/such/program"):
        Worker(command=("/no/such/program",)).compile(job("a", tmp_path))
