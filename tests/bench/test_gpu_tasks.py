"""The tasks of bench/gpu.py without a GPU: they run in processes that may hang or die, and results outlive these."""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import moec
from bench.cuda import data, measure, table, timing
from bench.cuda.ceilings import Ceilings
from bench.cuda.results import BEGUN, ENDED, FAILED, FOUND, Found, Results
from bench.cuda.shapes import SHAPES, Shape
from bench.cuda.supervisor import Supervisor
from bench.cuda.table import Measured
from bench.cuda.tasks import tasks

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[2]
TINY = Shape("Tiny", 5, 72, 40, 3, 29)

WORKER = """
import json, os, signal, subprocess, sys, time
path, *names = sys.argv[1:]
def add(task, state, **more):
    with open(path, "a") as file:
        file.write(json.dumps({"task": task, "state": state, **more}) + "\\n")
if names[0] == "unable":
    sys.exit("no module named so")
for name in names:
    add(name, "begun", device="GPU", digest="")
    if name == "hangs":
        subprocess.run(["sleep", "1000"])
    if name == "dies":
        sys.exit("CUDA error: an illegal memory access was encountered")
    if name == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    add(name, "found", line=name, sound=name != "wrong")
    add(name, "ended")
sys.exit(3 if "wrong" in names else 0)
"""


def supervisor(results: Results, said: list[str], seconds: float = 60.0) -> Supervisor:
    def command(names: Sequence[str]) -> list[str]:
        return [sys.executable, "-S", "-c", WORKER, str(results.path), *names]

    limits = dict.fromkeys(("first", "dies", "killed", "hangs", "wrong", "last"), seconds)
    return Supervisor(results, command, limits, results.path.parent, said.append)


def test_what_fails_is_named_and_the_rest_runs(tmp_path: Path) -> None:
    results, said = Results(tmp_path / "results.jsonl"), list[str]()
    left = supervisor(results, said).run(["first", "dies", "killed", "wrong", "last"])
    assert left == []
    assert results.over("GPU", {}) == {"first": True, "dies": False, "killed": False, "wrong": False, "last": True}
    assert [line for line in said if not line.startswith("FAILED")] == ["first", "wrong", "last"]
    assert said[1] == "FAILED dies: CUDA error: an illegal memory access was encountered (exit status 1)"
    assert said[2] == "FAILED killed: it said nothing (exit status -9)"


def test_what_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    results, said = Results(tmp_path / "results.jsonl"), list[str]()
    began = time.monotonic()
    assert supervisor(results, said, seconds=1.0).run(["hangs", "last"]) == []
    assert time.monotonic() - began < 60
    assert said == ["FAILED hangs: hangs: nothing found in 1 seconds", "last"]


def test_an_end_of_time_leaves_the_rest(tmp_path: Path) -> None:
    results, said = Results(tmp_path / "results.jsonl"), list[str]()
    left = supervisor(results, said).run(["first", "hangs", "last"], until=time.monotonic() + 3.0)
    assert left == ["hangs", "last"]
    assert results.over("GPU", {}) == {"first": True}  # so that another run goes on with these


def test_a_process_that_cannot_begin_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no module named so"):
        supervisor(Results(tmp_path / "results.jsonl"), []).run(["unable", "last"])


def test_a_process_that_does_nothing_is_an_error(tmp_path: Path) -> None:
    results = Results(tmp_path / "results.jsonl")
    lazy = Supervisor(results, lambda names: [sys.executable, "-S", "-c", ""], {}, tmp_path, lambda line: None)
    with pytest.raises(RuntimeError, match="it said nothing"):
        lazy.run(["first"])


def test_results_are_those_of_a_device_and_its_artifacts(tmp_path: Path) -> None:
    results = Results(tmp_path / "folder" / "results.jsonl")
    assert results.read() == []
    results.add("a", BEGUN, {"device": "GPU", "digest": "1"})
    results.add("a", FOUND, Found("wrong", sound=False).data)
    results.add("a", ENDED, {})
    assert results.over("GPU", {"a": "1"}) == {"a": False}
    assert results.over("GPU", {"a": "2"}) == {}
    assert results.over("another", {"a": "1"}) == {}
    results.add("a", BEGUN, {"device": "GPU", "digest": "1"})
    assert results.over("GPU", {"a": "1"}) == {}
    with results.path.open("a") as file:
        file.write('{"task": "a", "sta')  # what a process writes that is killed meanwhile
    assert len(results.read()) == 4
    results.add("a", ENDED, {})
    assert [one["state"] for one in results.read()] == [BEGUN, FOUND, ENDED, BEGUN, ENDED]
    assert results.path.read_text().endswith('"sta\n{"task": "a", "state": "ended"}\n')


def test_tables_are_made_of_results(tmp_path: Path) -> None:
    results, (shape, *_) = Results(tmp_path / "results.jsonl"), SHAPES.values()
    found = (
        ("ceilings", Found("", ceilings=Ceilings(800.0, 3000.0))),
        ("prefill/E128/moec", Found("", measured=Measured(shape, 32768, "moec", 0.005))),
        ("decode/E128/moec", Found("", measured=Measured(shape, 1, "moec", 40e-6), experts=8)),
    )
    for task, one in found:
        results.add(task, BEGUN, {"device": "GPU", "digest": ""})
        results.add(task, FOUND, one.data)
        results.add(task, ENDED, {})
    results.add("prefill/E128/Triton", BEGUN, {"device": "GPU", "digest": ""})
    results.add("prefill/E128/Triton", FAILED, {"line": "hangs"})
    again, limits = results.measured("GPU")
    calls = [(one.measured, one.experts) for one in again if one.measured is not None]
    large = table.prefill([call for call, experts in calls if experts is None], limits).splitlines()
    assert large[2:] == ["| E128 | 32768 | moec | 5.000 | 495 | 62% | 550 |", "| E128 | 32768 | Triton | hangs | | | |"]
    few = [(call, experts) for call, experts in calls if experts is not None]
    text = table.decode([call for call, _ in few], [experts for _, experts in few], limits)
    assert text.splitlines()[2:] == ["| E128 | 1 | 8 | moec | 40.0 | 25.2 | 1.59 |"]


def test_what_tells_most_comes_first() -> None:
    names = list(tasks())
    places = [names.index(name) for name in ("kernels/E128/random", "prefill/Wide/moec", "decode/E128/moec")]
    assert places == sorted(places)
    assert max(places) < names.index("prefill/E128/Triton") < names.index("kernels/Small/ties")
    assert names[-1] == "sanitizer/initcheck"


class OnCpu:
    """Where `Compiled` would run the layer on a GPU."""

    def __init__(self, folder: Path, shape: Shape, weights: measure.Weights) -> None:
        self.layer = moec.load(folder / f"{shape.name}.so")
        self.layer.load_state_dict(dict(weights))

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return self.layer(x)  # type: ignore[no-any-return]


class Event:
    """Of a clock that says 2 ms between any two."""

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None: ...

    def elapsed_time(self, end: Event) -> float:
        return 2.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """`bench.cuda.timing` without a GPU; a captured call is replayed by calling it."""
    monkeypatch.setattr(timing.torch, "cuda", SimpleNamespace(Event=Event, synchronize=lambda: None))
    monkeypatch.setattr(timing, "_captured", lambda call: SimpleNamespace(replay=call))
    empty = torch.empty
    monkeypatch.setattr(timing.torch, "empty", lambda *sizes, device="cpu", **more: empty(*sizes, **more))
    monkeypatch.setattr(timing, "_FLUSH_BYTES", 1024)
    monkeypatch.setattr(data, "device", lambda: torch.device("cpu"))
    monkeypatch.setattr(measure, "Compiled", OnCpu)


@pytest.mark.parametrize("route", ["moec", measure.GROUPED, measure.LOOP])
def test_measuring_runs(clock: None, route: str, tmp_path: Path) -> None:
    if route == "moec":
        (tmp_path / "Tiny.moe").write_text(TINY.source)
        moec.compile(tmp_path / "Tiny.moe", tmp_path / "Tiny.so")
    (large,) = measure.prefill(tmp_path, TINY, route)
    assert large.measured == Measured(TINY, 29, route, 2e-3), large.line
    few = list(measure.decode(tmp_path, TINY, route))
    assert [one.measured.tokens for one in few if one.measured] == [1, 2, 4, 8, 16, 32, 64]
    assert few[0].experts == 3
    assert all(one.measured and one.measured.seconds == 2e-3 for one in few), [one.line for one in few]


def test_what_a_peer_lacks_is_said(clock: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "bench.cuda.triton_layer", None)
    (found,) = measure.prefill(tmp_path, TINY, measure.TRITON)
    assert found.measured is not None
    assert found.measured.seconds is None
    assert "triton_layer" in found.measured.why

    def full(*_: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(measure.peers, "loop", full)
    (found,) = measure.prefill(tmp_path, TINY, measure.LOOP)
    assert found.line.endswith("loop over experts: out of memory")


def test_a_peer_that_is_wrong_is_not_timed(clock: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sound = measure.peers.loop
    monkeypatch.setattr(measure.peers, "loop", lambda *given: sound(*given) * 1.1)
    (found,) = measure.prefill(tmp_path, TINY, measure.LOOP)
    assert found.measured is not None
    assert found.measured.seconds is None
    assert found.measured.why.startswith("wrong: Outcome(worst=0.1")


COMPILER = ("torch_mlir", "lark", "typer", "rich", "hypothesis", "filecheck", "pytest", "highspy")
ROOMS = ("backends", "passes", "frontend", "pipeline", "oracle", "dialect", "cli")


def without_compiler(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    names = [*COMPILER, *(f"moec.{room}" for room in ROOMS)]
    blocked = f"import sys\nsys.modules.update(dict.fromkeys({names!r}))\nsys.path.insert(0, {str(ROOT)!r})\n"
    command = [sys.executable, "-c", blocked + script, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def test_carried_artifacts_need_no_compiler(tmp_path: Path) -> None:
    for shape in SHAPES.values():
        (tmp_path / f"{shape.name}.so").touch()
    names = [f"prefill/{shape.name}/moec" for shape in SHAPES.values()]
    script = "import bench.cuda.worker\nfrom bench import gpu\nsys.exit(gpu.main())"
    done = without_compiler(script, "--artifacts", str(tmp_path), "--only", *names)
    if torch.cuda.is_available():
        pytest.skip("there is a GPU, on which these artifacts would be loaded")
    assert done.stderr == "torch finds no CUDA device on this machine; nothing was checked or measured\n"
    assert done.returncode == 2


def test_an_artifact_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    script = "from bench import gpu\nsys.exit(gpu.main())"
    options = ("--artifacts", str(tmp_path), "--compile-only", "--only", "layer/Small/random", "layer/Odd/random")
    done = without_compiler(script, *options)
    assert done.returncode == 1
    first, second = done.stderr.splitlines()
    assert first.startswith("there is no artifact Small.so, and it cannot be compiled here: ")
    assert second.startswith("there is no artifact Odd.so")


def test_no_task_is_an_error() -> None:
    done = subprocess.run(
        [sys.executable, "bench/gpu.py", "--only", "nothing/*"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert (done.returncode, done.stderr.splitlines()) == (
        2,
        ["no task fits `--only` and `--skip`; `--list` names all"],
    )


def test_annotations_of_triton_kernels_are_those_that_its_compiler_knows() -> None:
    """It looks up every name in a kernel's signature, and refuses what is no constant of its own."""
    tree = ast.parse((ROOT / "bench/cuda/triton_kernels.py").read_text())
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert len(functions) >= 3
    for function in functions:
        given = [argument.annotation for argument in function.args.args if argument.annotation is not None]
        assert {ast.unparse(one) for one in given} <= {"tl.constexpr"}
        assert function.returns is None
