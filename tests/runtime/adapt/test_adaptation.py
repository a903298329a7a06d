"""The handle: its thread, its end, and what becomes of it in copies, children and at the end of the process."""

from __future__ import annotations

import copy
import gc
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import moec
from moec.artifact.container import read, write
from moec.artifact.manifest import Manifest
from moec.errors import AdaptationError
from moec.runtime.adapt.adaptation import Adaptation
from moec.runtime.adapt.journal import Journal
from moec.runtime.adapt.statistics import LoadStatistics
from moec.runtime.module import Layer
from tests.runtime import double
from tests.runtime.adapt.adapting import SMALL, Compilers, Proposals, loaded, policy, variant

SLOW = "SLEEP_US=3000"
pytestmark = pytest.mark.usefixtures("alone")


def adapting(layer: Layer, folder: Path, compiler: Compilers | None = None, **options: object) -> Adaptation:
    statistics = layer._store.statistics
    assert statistics is not None
    compiler = compiler or Compilers({"small": variant(layer, folder, SMALL)})
    layer._store.adaptation = Adaptation(
        layer._store,
        policy(),
        statistics,
        options.pop("proposer", None) or Proposals(SMALL, gain=100.0),  # type: ignore[arg-type]
        compiler,
        Journal(folder / "journal.jsonl"),
        pace=0.01,
        pause=0.1,
    )
    return layer._store.adaptation


def calls(layer: Layer, until: Callable[[], object], seconds: float = 240.0) -> None:
    x = torch.ones(4, 4)
    end = time.monotonic() + seconds
    while not until():
        assert torch.equal(layer(x, 1), double.expected(x, 1))
        assert time.monotonic() < end


def threads() -> list[str]:
    """Those that adapt layers; in this process there may be others' threads."""
    own = tuple(f"moec-{what}" for what in ("adapt", "prepare", "supply", "residency"))
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(own)]


def test_a_layer_adapts_and_stops(tmp_path: Path) -> None:
    layer = loaded(tmp_path, SLOW)
    compiler = Compilers({"small": variant(layer, tmp_path, SMALL)})
    with adapting(layer, tmp_path, compiler) as handle:
        assert handle.running
        calls(layer, lambda: any(d["event"] == "decision" and d["what"] == "keep" for d in handle.decisions))
        assert list(handle.variants) == ["small"]
        assert handle.variants["small"] == SMALL
        assert layer.adaptation is handle
    assert not handle.running
    assert compiler.closed
    assert threads() == []
    assert Path(handle.journal).read_text().count('"event": "stop"') == 1
    assert list(handle.variants) == ["small"], "it goes on running"
    calls(layer, lambda: True)
    handle.stop()


def test_a_layer_that_was_stopped_adapts_again_with_what_was_kept(tmp_path: Path) -> None:
    layer = loaded(tmp_path, SLOW)
    with adapting(layer, tmp_path) as handle:
        calls(layer, lambda: any(d["event"] == "decision" and d["what"] == "keep" for d in handle.decisions))
    with adapting(layer, tmp_path) as again:
        assert dict(again.variants) == {"small": SMALL}
        calls(layer, lambda: any(d["event"] == "decision" for d in again.decisions))
        assert not any(d["event"] == "failed" for d in again.decisions), list(again.decisions)
        assert again.running


def test_stopping_in_the_middle_takes_back_what_is_not_decided(tmp_path: Path) -> None:
    layer = loaded(tmp_path, "SLEEP_US=20000")
    handle = adapting(layer, tmp_path)
    calls(layer, lambda: any(d["event"] == "swap" for d in handle.decisions))
    handle.stop()
    assert handle.variants == {}
    assert layer._store.published is None


def test_a_layer_that_is_dropped_takes_its_thread_along(tmp_path: Path) -> None:
    layer = loaded(tmp_path, SLOW)
    compiler = Compilers({"small": variant(layer, tmp_path, SMALL)})
    reference = weakref.ref(adapting(layer, tmp_path, compiler))
    calls(layer, lambda: list(reference().variants))  # type: ignore[union-attr]
    store = weakref.ref(layer._store)
    del layer
    gc.collect()
    end = time.monotonic() + 60
    while (store() is not None or threads() or not compiler.closed) and time.monotonic() < end:
        time.sleep(0.01)
    assert store() is None
    assert threads() == []
    assert compiler.closed


def test_a_copy_does_not_adapt(tmp_path: Path) -> None:
    layer = loaded(tmp_path, SLOW)
    with adapting(layer, tmp_path):
        twin = copy.deepcopy(layer)
        assert twin.adaptation is None
        calls(twin, lambda: True)


def test_errors_of_the_machinery_reach_no_caller(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Proposals):
        def propose(self, *arguments: object) -> list[object]:  # type: ignore[override]
            raise ZeroDivisionError("a bug")

    layer = loaded(tmp_path)
    handle = adapting(layer, tmp_path, proposer=Broken())
    calls(layer, lambda: not handle.running)  # after ten of them it gives up
    assert sum(record["event"] == "failed" for record in handle.decisions) == 10
    assert "ZeroDivisionError: a bug" in caplog.text
    handle.stop()


def test_a_forked_child_runs_what_was_there_and_adapts_nothing(tmp_path: Path) -> None:
    layer = loaded(tmp_path, SLOW)
    handle = adapting(layer, tmp_path)
    calls(layer, lambda: any(d["event"] == "swap" for d in handle.decisions))
    lines = Path(handle.journal).read_text().count("\n")
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            x = torch.ones(4, 4)
            right = all(torch.equal(layer(x, 1), double.expected(x, 1)) for _ in range(4))
            layer.load_state_dict(double.weights())
            published = layer._store.published
            told = [right, handle.running, published is None, layer.adaptation is handle]
            handle.stop()
            os.write(writing, repr(told).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        assert pipe.read() == "[True, False, True, True]"
    os.waitpid(pid, 0)
    assert handle.running
    assert Path(handle.journal).read_text().count("\n") >= lines
    handle.stop()


def with_policy(folder: Path) -> Path:
    """An artifact with a layout, and a load that it counts."""
    from moec.artifact.manifest import Statistic

    path = folder / "policed.so"
    manifest = replace(
        double.manifest(), layer="Policed", policy=policy(), statistics=(Statistic("chosen", "routed", 1, (5,)),)
    )
    write(path, double.compiled(), manifest, {})
    return path


def test_threads_that_ask_for_statistics_at_once_get_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def slowly(manifest: Manifest) -> LoadStatistics:
        made.append(manifest)
        time.sleep(0.05)
        return LoadStatistics(5, 1, capacity=False)

    monkeypatch.setattr(LoadStatistics, "of", slowly)
    layer = moec.load(with_policy(tmp_path))
    start = threading.Barrier(4)

    def ask() -> LoadStatistics:
        start.wait()
        return layer.statistics

    with ThreadPoolExecutor(4) as pool:
        found = {id(one.result()) for one in [pool.submit(ask) for _ in range(4)]}
    assert found == {id(layer.statistics)}
    assert len(made) == 1


def test_the_public_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    layer = moec.load(with_policy(tmp_path), adapt=True)
    assert layer.adaptation is not None
    assert layer.adaptation.running
    assert layer.adaptation.policy == policy()
    assert layer.adaptation.statistics is layer.statistics
    assert layer.adaptation.journal.startswith(str(tmp_path / "state" / "moec" / "journals" / "Policed-"))
    layer.load_state_dict(double.weights())
    calls(layer, lambda: True)
    with pytest.raises(AdaptationError, match="adapts already"):
        layer.adapt()
    layer.adaptation.stop()
    with layer.adapt(
        journal=tmp_path / "mine.jsonl", cache=tmp_path / "mine", policy=replace(policy(), layout="Other")
    ):
        assert (tmp_path / "mine.jsonl").exists()
    assert '"layout": "Other"' in (tmp_path / "mine.jsonl").read_text()


def test_what_cannot_adapt_says_why(tmp_path: Path) -> None:
    with pytest.raises(AdaptationError, match="does not count its load"):
        moec.load(double.artifact(tmp_path, layer="Plain"), adapt=True)
    layer = moec.load(with_policy(tmp_path))
    bare = replace(layer.manifest, policy=None)
    write(tmp_path / "bare.so", double.compiled(), bare, {})
    with pytest.raises(AdaptationError, match="has no policy"):
        moec.load(tmp_path / "bare.so", adapt=True)
    assert read(tmp_path / "policed.so").sha256
    write(tmp_path / "policed.so", double.compiled("ONE_INPUT"), bare, {})
    with pytest.raises(AdaptationError, match="is another artifact by now"):
        layer.adapt()
    (tmp_path / "policed.so").unlink()
    with pytest.raises(AdaptationError, match="cannot be read"):
        layer.adapt()


def python(code: str, *arguments: object, folder: Path) -> str:
    environment = {**os.environ, "XDG_STATE_HOME": str(folder), "XDG_CACHE_HOME": str(folder)}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return done.stdout.strip()


def test_nothing_starts_unasked(tmp_path: Path) -> None:
    code = """
import sys, threading, moec
layer = moec.load(sys.argv[1]).reset_parameters(0)
print(threading.active_count(), [m for m in sys.modules if m.startswith("moec.runtime.adapt")])
"""
    assert python(code, with_policy(tmp_path), folder=tmp_path) == "1 []"


def test_the_process_ends_in_good_order(tmp_path: Path) -> None:
    code = """
import sys, moec
layer = moec.load(sys.argv[1], adapt=True)
print(layer.adaptation.running)
"""
    assert python(code, with_policy(tmp_path), folder=tmp_path) == "True"
    (journal,) = (tmp_path / "moec" / "journals").iterdir()
    assert journal.read_text().splitlines()[-1].startswith('{"event": "stop"')


def test_the_process_does_not_wait_for_a_compiler(tmp_path: Path) -> None:
    code = """
import sys, time, moec
from moec.artifact.specialisation import Specialisation
from moec.runtime.adapt import start
from moec.runtime.adapt.worker import Worker
start.Worker = lambda: Worker(timeout=1000, command=("sleep", "1000"))
layer = moec.load(sys.argv[1], adapt=True)
compiler = layer.adaptation._controller._compiler
future = compiler.submit(Specialisation("few", tokens=(1, 2)))
while compiler._worker.pid is None:
    time.sleep(0.01)
print(compiler._worker.pid)
"""
    pid = int(python(code, with_policy(tmp_path), folder=tmp_path))
    assert not Path(f"/proc/{pid}").exists()
