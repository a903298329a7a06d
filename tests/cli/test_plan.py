"""`moec plan` and `moec graph --schedule`: what they say of a layout is what is predicted, and exit codes follow it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner, Result

from moec.cli.app import app
from moec.cli.graph import read_timeline
from moec.cli.plan import MISSED
from moec.errors import MoecError

SOURCE = """
edition 1

layer Small(d = 64, ff = 128) {{
  router softmax_top(2)
  experts routed[8] = swiglu(d, ff) : bf16
}}

mesh Pair {{
  axis node[2] : link(1 Gbit/s, 50 us)
  axis gpu[2]  : link(10 GB/s, 5 us)
  {device}
}}

load Chat {{ batch = 1..256 }}

layout Serve for Small on Pair under Chat {{
  shard routed over node * gpu as ep
  overlap dispatch, combine in 2 chunks
  {requires}
}}
"""


@pytest.fixture
def source(tmp_path: Path) -> Any:
    def write(requires: str = "", device: str = "") -> str:
        path = tmp_path / "small.moe"
        path.write_text(SOURCE.format(requires=requires, device=device))
        return str(path)

    return write


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def planned(*arguments: str) -> dict[str, Any]:
    result = run("plan", *arguments, "--json")
    assert result.exit_code == 0, result.output
    data: dict[str, Any] = json.loads(result.stdout)
    return data


def test_json_says_everything(source: Any) -> None:
    data = planned(source())
    assert (data["layer"], data["layout"], data["tokens"]) == ("Small", "Serve", 256)
    assert data["mesh"] == {"name": "Pair", "axes": {"node": 2, "gpu": 2}}
    forward = data["chosen"]["forward"]
    assert 0 <= forward["exchange_alone"] < forward["seconds"]
    assert {"route", "dispatch", "experts", "combine", "collect"} <= set(forward["phases"])
    assert set(forward["link_bytes"]) == {"node", "gpu"}
    assert data["blocking"]["forward"]["link_bytes"]["node"] > forward["link_bytes"]["node"]
    assert data["rejected"]
    assert all(one["why"] for one in data["rejected"] + data["inapplicable"])
    memory = data["memory"]
    assert memory["total"] == pytest.approx(sum(memory[name] for name in ("weights", "tokens", "buffers")))
    assert data["holds"] is True


def test_more_tokens_take_more(source: Any) -> None:
    few, many = (planned(source(), "--tokens", str(tokens))["chosen"]["forward"] for tokens in (64, 4096))
    assert few["seconds"] < many["seconds"]
    assert few["link_bytes"]["node"] < many["link_bytes"]["node"]


def test_training_is_planned_both_ways(source: Any) -> None:
    assert planned(source(), "--training")["chosen"]["backward"]["seconds"] > 0
    assert "backward" not in planned(source())["chosen"]


@pytest.mark.parametrize(
    ("requires", "device", "code"),
    [
        ("", "", 0),
        ("require memory <= 1 GiB; require time <= 10 s; require exchange <= 100 %", "", 0),
        ("require time <= 1 us", "", MISSED),
        ("require memory <= 128 KiB", "", MISSED),
        ("require time <= 10 s; require exchange <= 0.01 %", "", MISSED),
        ("require memory <= 1 GiB", "device : memory(1 MiB)", 0),
    ],
)
def test_exit_codes_follow_requirements(source: Any, requires: str, device: str, code: int) -> None:
    path = source(requires, device)
    assert run("plan", path).exit_code == 0
    result = run("plan", path, "--exit-code")
    assert result.exit_code == code, result.output
    verdicts = planned(path)["requirements"]
    assert [one["holds"] for one in verdicts].count(False) == (code == MISSED)
    assert ("missed" in result.output) == (code == MISSED)


def test_a_layer_without_a_mesh_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "alone.moe"
    path.write_text(SOURCE.format(requires="", device="").partition("mesh")[0])
    result = run("plan", str(path), "--exit-code")
    assert result.exit_code == 1
    assert "E0634" in result.output


def test_an_unknown_machine_file_is_an_error(source: Any, tmp_path: Path) -> None:
    machine = tmp_path / "machine.json"
    machine.write_text("{}")
    result = run("plan", source(), "--machine", str(machine))
    assert result.exit_code == 1
    assert "no machine file" in result.output


@pytest.mark.parametrize("content", [b"\xff" * 9999, b"[" * 9999, b"layer"])
def test_a_timeline_that_is_none_is_named_and_not_shown(source: Any, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "0.json"
    path.write_bytes(content)
    result = run("graph", source(), "--schedule", "-o", str(tmp_path / "out.svg"), "--measured", str(path))
    assert result.exit_code == 1
    assert " ".join(result.stderr.split()) == f"error: {path} is no timeline of a rank: it is not JSON"


@pytest.mark.parametrize(("content", "why"), [(b"\xff", "it is not JSON"), (None, "no such file or directory")])
def test_a_machine_file_that_cannot_be_read(source: Any, tmp_path: Path, content: bytes | None, why: str) -> None:
    machine = tmp_path / "machine.json"
    if content is not None:
        machine.write_bytes(content)
    result = run("plan", source(), "--machine", str(machine))
    assert result.exit_code == 1
    assert f"can be read: {why}" in " ".join(result.output.split())


def test_more_chunks_than_any_layout_may_ask_for(source: Any) -> None:
    result = run("plan", source(), "--chunks", "9999")
    assert result.exit_code == 1
    assert "exchanges are cut into 1 to 256 chunks, not 9,999" in result.output


def timeline(rank: int, more: float) -> str:
    steps = [("route", "route", "compute"), ("dispatch.0", "exchange", "net.all"), ("unheard of", "relay", "net.all")]
    spans = [
        {"name": n, "kind": k, "stream": s, "chunk": None, "begin": 1e3 * i, "end": 1e3 * (i + 1) + more}
        for i, (n, k, s) in enumerate(steps)
    ]
    return json.dumps({"rank": rank, "steps": spans})


def test_the_drawing_has_the_prediction_and_what_was_measured(source: Any, tmp_path: Path) -> None:
    drawn, given = tmp_path / "out.svg", []
    for rank in (0, 3):
        path = tmp_path / f"{rank}.json"
        path.write_text(timeline(rank, 500.0))
        given += ["--measured", str(path)]
    assert run("graph", source(), "--schedule", "-o", str(drawn), *given).exit_code == 0
    texts = "\n".join(ElementTree.fromstring(drawn.read_text()).itertext())
    for said in ("rank 0", "rank 3", "dispatch.0, predicted", "dispatch.0, measured: 1.5 ms", "Measured: 3.5 ms"):
        assert said in texts
    assert run("graph", source(), "--schedule", "-o", str(drawn)).exit_code == 0
    assert "the last rank" in drawn.read_text()


def test_what_cannot_be_drawn_is_said(source: Any, tmp_path: Path) -> None:
    assert run("graph", source()).exit_code == 2
    for text in ("", "[]", '{"rank": 0}', '{"rank": 0, "steps": [{"name": "a"}]}', '{"rank": 0, "steps": [7]}'):
        path = tmp_path / "bad.json"
        path.write_text(text)
        with pytest.raises(MoecError, match="no timeline"):
            read_timeline(path)


def test_an_artifact_is_planned_like_what_it_was_made_from(source: Any, tmp_path: Path) -> None:
    from moec.pipeline import compile

    path = source()
    made = compile(path, tmp_path / "small.so")
    assert planned(str(made)) == planned(path)
    drawn = run("graph", str(made), "--schedule")
    assert drawn.exit_code == 0, drawn.output
    assert (tmp_path / "small.svg").exists()
    for arguments, said in (
        (("plan", str(made), "--layout", "Serve"), "is an artifact, which holds the layout that it was made with"),
        (("plan", str(made), "-D", "ff=64"), "is an artifact, which holds the parameters that it was made with"),
        (("compile", str(made)), "is compiled already"),
        (("check", str(made)), "give the `.moe` file; of an artifact there is `moec inspect` and `moec plan`"),
    ):
        result = run(*arguments)
        assert result.exit_code == 1
        assert said in " ".join(result.output.split())


def test_a_file_that_is_no_machine_s_is_named(source: Any, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("fast")
    for name in ("notes.txt", "none.json"):
        result = run("plan", source(), "--machine", str(tmp_path / name))
        assert result.exit_code == 1
        assert f"{name}` is no machine file that can be read" in " ".join(result.output.split())
