"""What `moec top` shows: of one layer and of several, of few and many experts, wide and narrow, alive and dead."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from moec.cli.app import app
from moec.cli.terminal import watched as watching
from moec.cli.terminal.bars import along, curve, load_bars, load_strips
from moec.cli.terminal.screen import picture
from moec.cli.terminal.watched import Fleet, Watched
from moec.journal import Liveness
from tests.journal import drifting, moving


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    folder = tmp_path / "state" / "moec" / "journals"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "liveness", lambda start: Liveness.ALIVE)


def journal(path: Path, seconds: int = 300, experts: int = 64, slots: int = 8, **fields: Any) -> Path:
    return drifting.write(path, drifting.records(seconds, experts, slots, **fields))


def shown(paths: list[Path], width: int = 80, height: int | None = None, chosen: int = 0, after: float = 0.5) -> str:
    fleet = Fleet([str(path) for path in paths])
    now = max(one.last for one in fleet.watched) + after
    text = "\n".join(line.plain.rstrip() for line in picture(fleet.watched, chosen, now, width, height))
    fleet.close()
    return text


def top(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["top", *arguments], env={"COLUMNS": "90"})


@pytest.mark.usefixtures("alive")
def test_one_layer_in_full(tmp_path: Path) -> None:
    text = shown([journal(tmp_path / "j.jsonl")])
    begin, *_ = text.splitlines()
    assert begin.startswith("OLMoE  ● running   pid 4242   64 experts, 8 a token")
    for expected in (
        "avx512_bf16   policy Serve\nsince",
        "calls/s             5",
        "tokens a call    1,024",
        "768.0 MiB",
        "the mean)",
        "of 64 empty",
        "  0               16              32              48",
        "           1–16  tokens_1_16",
        " 4,097 and more  base",
        "○ imbalance > 1.3 and tokens >= 64",
        "    cooling  ···················· 0 of 200 calls   imbalance",
        "keep      tokens_1_16  measured 1.33x over 412 calls",
        "swap      tokens_1_16  published beside base, on trial",
        "checked   tokens_1_16  the same bits; 1.31× in the background, 0.42",
        "compiled  tokens_1_16  in 0.62 s",
        "compile   tokens_1_16  most calls have 1 to 16 tokens; 1.35x over",
        "start     OLMoE begins to adapt",
    ):
        assert expected in text, text
    order = [
        text.index(word) for word in ("Load ", "Variants", "Guards", "What happened", "rollback", "keep  ", "start  ")
    ]
    assert order == sorted(order), "the latest event first"


@pytest.mark.usefixtures("alive")
def test_what_a_capacity_drops(tmp_path: Path) -> None:
    path = drifting.write(tmp_path / "j.jsonl", drifting.records(20, overflow=0.125))
    assert "dropped         12.5 %" in shown([path])
    assert "dropped" not in shown([journal(tmp_path / "none.jsonl", 20)])


@pytest.mark.usefixtures("alive")
@pytest.mark.parametrize("experts", [1, 2, 8, 16, 17, 60, 64, 128, 256, 1000])
@pytest.mark.parametrize(("width", "height"), [(20, 10), (40, 24), (80, 24), (80, 50), (160, 60), (300, 100)])
def test_it_fits_any_terminal(tmp_path: Path, experts: int, width: int, height: int) -> None:
    text = shown([journal(tmp_path / "j.jsonl", 20, experts, 1)], width, height).splitlines()
    assert len(text) == height
    assert max(map(len, text)) <= width
    assert text[-1] == "q quits"


@pytest.mark.usefixtures("alive")
def test_several_layers(tmp_path: Path) -> None:
    paths = [journal(tmp_path / f"{n}.jsonl", 30, 8, 2, layer=f"Layer{n:02}", seed=n) for n in range(20)]
    text = shown(paths, 100, 60, chosen=17)
    lines = text.splitlines()
    assert lines[0].split() == ["layer", "calls/s", "p50", "p99", "imbalance", "variants"]
    assert any(line.startswith("●  Layer17  ") for line in lines)
    assert any(line.startswith("Layer17  ● running") for line in lines)
    assert "and 2 more" in text
    assert lines[-1] == "↑ ↓ choose a layer · q quits"
    assert "and" not in shown(paths[:3], 100, 60).splitlines()[4]
    narrow = shown(paths[:3], 40, 30).splitlines()
    assert max(map(len, narrow)) <= 40
    assert narrow[0].split()[:2] == ["layer", "calls/s"]


def test_a_process_that_is_gone(tmp_path: Path) -> None:
    path = journal(tmp_path / "j.jsonl")
    assert "✗ its process died 2 h 0 min ago" in shown([path], after=7200)
    with path.open("a") as file:
        file.write(json.dumps({"event": "stop", "time": drifting.BEGIN + 302}) + "\n")
    text = shown([path], after=7200)
    assert "■ stopped 2 h 0 min ago" in text
    assert "stop      it ended" in text


def test_a_process_that_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = journal(tmp_path / "j.jsonl")
    monkeypatch.setattr(watching, "liveness", lambda start: Liveness.ALIVE)
    assert "● silent for 35 s" in shown([path], after=35)
    monkeypatch.setattr(watching, "liveness", lambda start: Liveness.UNKNOWN)
    assert "? of another machine" in shown([path], after=35)


@pytest.mark.usefixtures("alive")
def test_before_the_first_sample_and_the_first_call(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    path.write_text("")
    assert "no sample yet" in shown([path])
    path.write_text(json.dumps(drifting.start()) + "\n")
    assert "no sample yet" in shown([path])
    sample = {"event": "sample", "time": drifting.BEGIN + 1, "load": [0.0] * 64, "active": ["base"], "latency_ms": None}
    path.write_text("\n".join(map(json.dumps, (drifting.start(), sample))) + "\n")
    text = shown([path])
    assert "no call yet" in text
    assert "latency p50" in text
    assert "  base" in text


def test_a_strangers_journal_is_only_text(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    evil = "[red]x[/red][/] \x1b[31m"
    records = [drifting.start(layer=evil, variant=evil), *list(drifting.records(3, 8, 2))[1:]]
    records.append({"event": "failed", "time": drifting.BEGIN + 9, "candidate": evil, "why": evil})
    drifting.write(path, iter(records))
    result = top(str(path))
    assert result.exit_code == 0, result.output
    assert "\x1b" not in result.output
    assert result.output.count("[red]x[/red][/] �[31m") >= 3


def test_output_that_is_no_terminal_gets_one_picture(tmp_path: Path) -> None:
    one, other = journal(tmp_path / "1.jsonl", 9), journal(tmp_path / "2.jsonl", 9, 8, 2, layer="Mixtral")
    result = top(str(one), str(other))
    assert result.exit_code == 0, result.output
    assert "OLMoE  ✗" in result.output
    assert "\n\nMixtral  ✗" in result.output
    assert all(line == line.rstrip() for line in result.output.splitlines())


def test_journals_are_found(state: Path) -> None:
    here = time.time()
    journal(state / "dead.jsonl", 3, pid=2**22 + 1)
    result = top()
    assert result.exit_code == 1
    assert "no layer adapts now. The last journal is" in result.stderr
    assert "dead.jsonl" in result.stderr
    running = [drifting.start(layer="Here", pid=os.getpid(), time=here), *list(drifting.records(3))[1:]]
    drifting.write(state / "here.jsonl", iter(running))
    assert top().output.startswith("Here  ●")
    assert "OLMoE" not in top().output
    assert top(str(2**22 + 1)).output.startswith("OLMoE  ✗")
    stopped = {"event": "stop", "time": here}
    drifting.write(state / "here.jsonl", iter([*running, stopped]))
    assert top().exit_code == 1, "a process that lives, whose adaptation has ended"


def test_nothing_to_show(state: Path, tmp_path: Path) -> None:
    assert "has no journals" in top().stderr
    assert "is of process 99999999" in top("99999999").stderr
    assert "No such file" in top(str(tmp_path / "none")).stderr
    assert "is not a file" in top(str(tmp_path)).stderr


def test_adaptations_that_begin_later_come_in(state: Path) -> None:
    here = {"pid": os.getpid(), "time": time.time()}
    drifting.write(state / "b.jsonl", iter([drifting.start(layer="B", **here)]))
    fleet = Fleet(())
    assert [one.start.layer for one in fleet.watched if one.start] == ["B"]
    drifting.write(state / "a.jsonl", iter([drifting.start(layer="A", **here)]))
    fleet.refresh(1.0)
    assert len(fleet.watched) == 1, "folders are not read all the time"
    fleet.refresh(10.0)
    assert [one.start.layer for one in fleet.watched if one.start] == ["A", "B"]
    fleet.close()


def test_a_second_run_in_one_journal(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    begun = list(drifting.records(5, 64))
    again = list(drifting.records(5, 8, 2, layer="Mixtral"))
    drifting.write(path, iter([*begun, {"event": "stop", "time": drifting.BEGIN + 7}, *again, again[0]]))
    one = Watched(path)
    one.poll()
    assert one.start is not None
    assert one.start.layer == "Mixtral"
    assert {len(sample.load) for sample in one.samples} == {8}
    assert "stopped" not in one.status(drifting.BEGIN).value
    assert sum(type(record).__name__ == "Start" for record in one.events) == 2
    one.close()


def test_moves_that_follow_each_other_are_one_event(tmp_path: Path) -> None:
    moves = [
        {"event": "moved", "time": drifting.BEGIN + n, "in": [n], "out": [n + 1], "bytes": 1024, "seconds": 1.0}
        for n in range(300)
    ]
    path = drifting.write(tmp_path / "j.jsonl", iter([drifting.start(), *moves]))
    text = " ".join(shown([path], 100).split())
    assert "into memory: experts 0, 1, 2, 3, 4, 5, 6, 7 and 292 more; out of memory" in text
    assert "300.0 KiB in 5 min" in text
    assert text.count("moved") == 1


def test_bars_say_what_they_measure() -> None:
    assert along(0.5, 8) == "████    "
    assert along(0.26, 8) == "██▏     "
    assert (along(0.0, 3), along(7.0, 3)) == ("   ", "███")
    assert curve([5.0] * 4, 6) == "  " + "▄" * 4
    assert curve([0.0, 1.0, 2.0, 3.0], 4) == "▁▃▆█"
    assert curve([0.0] * 50 + [1.0] * 50, 10) == "▁▁▁▁▁█████"
    assert curve([None, 1.0, None], 3) == " ▄ "
    assert curve([], 3) == "   "
    lines = load_bars([0.5, 0.25, 0.125, 0.125], 50)
    widths = [line.plain.count("█") for line in lines]
    assert widths[0] == 2 * widths[1] == 4 * widths[2]
    assert "50.0 %" in lines[0].plain
    assert "2.00×" in lines[0].plain
    strips = [line.plain for line in load_strips([0.5 / 32] * 16 + [1.5 / 32] * 16, 40, 3)]
    assert strips == ["  " + " " * 16 + "▄" * 16, "  " + "▄" * 16 + "█" * 16, "  0               16              "]
    few = [line.plain for line in load_strips([1 / 8] * 7 + [0.0], 40, 2)]
    assert few == ["  " + "▄▄ " * 7 + "   ", "  0           4           "]


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """`moec top` in a terminal of 80 × 30, with two layers."""
    paths = [journal(tmp_path / f"{n}.jsonl", 30, 8, 2, layer=f"Layer{n}") for n in range(2)]
    ours, theirs = pty.openpty()
    process = subprocess.Popen(  # a session of its own, whose terminal this is: only then Ctrl-C is a signal
        [sys.executable, "-m", "moec", "top", *map(str, paths)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        env={**os.environ, "COLUMNS": "80", "LINES": "30", "TERM": "xterm"},
    )
    os.close(theirs)
    yield ours, process
    process.kill()
    process.wait()
    os.close(ours)


def read_until(terminal: int, text: bytes) -> bytes:
    seen, end = b"", time.monotonic() + 200
    while text not in seen:
        ready, _, _ = select.select([terminal], [], [], end - time.monotonic())
        assert ready, seen.decode()
        seen += os.read(terminal, 65536)
    return seen


def test_keys(terminal: tuple[int, subprocess.Popen[bytes]]) -> None:
    ours, process = terminal
    assert b"\x1b[?1049h" in read_until(ours, b"Layer0  \x1b[0m"), "a screen of its own"
    os.write(ours, b"\x1b[B")
    read_until(ours, b"Layer1  \x1b[0m")
    os.write(ours, b"q")
    read_until(ours, b"\x1b[?1049l")
    assert process.wait(200) == 0


def test_interrupt(terminal: tuple[int, subprocess.Popen[bytes]]) -> None:
    ours, process = terminal
    read_until(ours, b"quits")
    os.write(ours, b"\x03")
    read_until(ours, b"\x1b[?1049l")
    assert process.wait(200) == 0


@pytest.mark.usefixtures("alive")
def test_experts_that_move(tmp_path: Path) -> None:
    records = list(moving.records())
    text = shown([drifting.write(tmp_path / "j.jsonl", iter(records[:-1]))], width=100, after=3600.0)
    for expected in (
        "● running",
        "experts move between 4 ranks",
        "move      OLMoE  copy 6",
        "tables 1 are in force at",
    ):
        assert expected in text, expected
    assert "no sample" not in text
    assert "stopped" in shown([drifting.write(tmp_path / "ended.jsonl", iter(records))])
