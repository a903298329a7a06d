"""`moec check`, `moec explain`, `moec fmt` as a person meets them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from moec.cli.app import app

RIGHT = "edition 1\n\nlayer L(d = 8, ff = 4) {\n  router switch()\n  experts routed[4] = mlp_relu(d, ff)\n}\n"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(one) for one in arguments])


@pytest.fixture
def right(tmp_path: Path) -> Path:
    path = tmp_path / "right.moe"
    path.write_text(RIGHT)
    return path


@pytest.fixture
def wrong(tmp_path: Path) -> Path:
    path = tmp_path / "wrong.moe"
    path.write_text(RIGHT.replace("mlp_relu", "mlp_rleu"))
    return path


def test_check_says_that_all_is_well(right: Path) -> None:
    done = run("check", right)
    assert done.exit_code == 0
    assert "no errors" in done.output


def test_check_shows_errors_and_fails(wrong: Path) -> None:
    done = run("check", wrong)
    assert done.exit_code == 1
    assert "did you mean `mlp_relu`?" in done.output
    assert "1 error; `moec explain E0202`" in done.output


def test_check_as_json(wrong: Path, right: Path) -> None:
    done = run("check", wrong, "--json")
    assert done.exit_code == 1
    (found,) = json.loads(done.stdout)["diagnostics"]
    assert (found["code"], found["fix"]["replacement"]) == ("E0202", "mlp_relu")
    assert json.loads(run("check", right, "--json").stdout)["diagnostics"] == []


def test_check_takes_defines(right: Path) -> None:
    assert run("check", right, "-D", "ff=16").exit_code == 0
    done = run("check", right, "-D", "fff=16")
    assert done.exit_code == 1
    assert "did you mean `ff`?" in done.output
    assert run("check", right, "-D", "ff").exit_code == 2


ODD = RIGHT + "\nlayout A for L {\n  recompile when imbalance > 9 for 9 s\n  specialise tokens(1..4)\n}\n"


def test_check_and_compile_warn_of_conditions(tmp_path: Path) -> None:
    path = tmp_path / "odd.moe"
    path.write_text(ODD)
    done = run("check", path)
    assert done.exit_code == 0
    assert "1 warning; `moec explain W0010`" in done.output
    done = run("compile", path, "--emit", "graph")
    assert done.exit_code == 0
    assert "warning[W0010]" in done.stderr
    assert 'layout = "A"' in done.stdout
    assert run("compile", path, "--emit", "graph", "--quiet").stderr == ""


def test_compile_chooses_a_layout(tmp_path: Path) -> None:
    path = tmp_path / "two.moe"
    path.write_text(RIGHT + "\nlayout A for L {\n}\n\nlayout B for L {\n}\n")
    assert 'layout = "B"' in run("compile", path, "--emit", "graph", "--layout", "B").stdout
    done = run("compile", path, "--emit", "graph")
    assert done.exit_code == 1
    assert "choose one with `--layout A`" in done.output


def test_explain() -> None:
    assert "# E0301: shapes that do not agree" in run("explain", "e0301").output
    assert "W0001" in run("explain").output
    done = run("explain", "E0310")
    assert done.exit_code == 1
    assert "did you mean" in done.output


def test_fmt_writes_in_place(tmp_path: Path) -> None:
    path = tmp_path / "a.moe"
    path.write_text("edition   1\nexpert f( d )=linear(x,d)#c\n")
    assert run("fmt", "--check", path).exit_code == 1
    assert path.read_text().startswith("edition   1")
    assert run("fmt", path).exit_code == 0
    assert path.read_text() == "edition 1\nexpert f(d) = linear(x, d)  #c\n"
    assert run("fmt", "--check", path).exit_code == 0


def test_fmt_leaves_what_does_not_parse(tmp_path: Path) -> None:
    path = tmp_path / "a.moe"
    path.write_text("edition 1\nexpert f(d = \n")
    done = run("fmt", path)
    assert done.exit_code == 1
    assert "E0103" in done.output
    assert path.read_text() == "edition 1\nexpert f(d = \n"


def test_library_and_examples_are_formatted() -> None:
    root = Path(__file__).resolve().parents[2]
    files = [*(root / "frontend" / "std").glob("*.moe"), *(root / "examples").glob("*.moe")]
    assert run("fmt", "--check", *files).output == ""
