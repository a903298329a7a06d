"""What commands read and write: each file that is wrong is named, and nothing that was there is lost."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from moec.artifact import container
from moec.cli.app import app
from moec.errors import NotAnArtifact
from tests.journal import drifting

LAYER = "edition 1\nlayer L(d = 8, ff = 8) {\n  router softmax_top(2)\n  experts routed[4] = swiglu(d, ff)\n}\n"
FULL = Path("/dev/full")
"""Every write to it fails as on a disk that is full."""


def run(*arguments: str | Path, given: bytes | None = None) -> Any:
    return CliRunner().invoke(app, [str(one) for one in arguments], input=given)


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    path = tmp_path / "layer.moe"
    path.write_text(LAYER)
    return path


@pytest.mark.skipif(not FULL.is_char_device(), reason="the system has no /dev/full")
def test_a_full_disk_is_no_bug(layer: Path) -> None:
    result = run("compile", layer, "--emit=graph", "-o", FULL)
    assert result.exit_code == 1
    assert result.stderr == "error: /dev/full: No space left on device\n"


def test_an_artifact_takes_the_place_of_no_device(layer: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    result = run("compile", layer, "-o", pipe)
    assert result.exit_code == 1
    assert "E0607" in result.stderr
    assert "it is no ordinary file" in result.stderr
    assert pipe.is_fifo()


def test_formatting_keeps_what_a_file_is(layer: Path, tmp_path: Path) -> None:
    layer.write_text(LAYER.replace("  router", "router"))
    layer.chmod(0o640)
    link = tmp_path / "link.moe"
    link.symlink_to(layer)
    assert run("fmt", link).exit_code == 0
    assert layer.read_text() == LAYER
    assert layer.stat().st_mode & 0o777 == 0o640
    assert link.is_symlink()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["layer.moe", "link.moe"]


def test_formatting_loses_nothing_where_it_cannot_write(layer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    text = LAYER.replace("  router", "router")
    layer.write_text(text)
    result = run("fmt", layer)
    assert result.exit_code == 1
    assert result.stderr == f"error: {layer}: No space left on device\n"
    assert layer.read_text() == text
    assert [one.name for one in layer.parent.iterdir()] == ["layer.moe"]


def test_a_file_that_cannot_be_formatted_does_not_stop_the_others(layer: Path, tmp_path: Path) -> None:
    layer.write_text(LAYER.replace("  router", "router"))
    broken = tmp_path / "broken.moe"
    broken.write_text("layer L(\n")
    missing = tmp_path / "missing.moe"
    for options, said in ((["--check"], "would reformat"), ([], "reformatted")):
        result = run("fmt", *options, broken, missing, layer)
        assert result.exit_code == 1
        assert all(word in result.stderr for word in (f"{said} {layer}", "E0103", f"cannot read `{missing}`"))
    assert layer.read_text() == LAYER
    assert broken.read_text() == "layer L(\n"


@pytest.mark.parametrize("command", [("check",), ("compile",), ("fmt",), ("opt",)])
@pytest.mark.parametrize("suffix", [".moe", ".mlir"])
def test_files_that_are_no_text(tmp_path: Path, command: tuple[str, ...], suffix: str) -> None:
    path = tmp_path / f"binary{suffix}"
    path.write_bytes(b"\n\n\xff\xfe")
    result = run(*command, path)
    assert result.exit_code == 1
    assert "it is not UTF-8 text (byte 2, in line 3)" in result.stderr + result.stdout
    assert "saved as UTF-8" in result.stderr + result.stdout


def test_standard_input_that_is_no_text() -> None:
    result = run("opt", given=b"\xff\xfe")
    assert result.exit_code == 1
    assert "standard input is not UTF-8 text" in result.stderr


def test_a_layer_is_no_ir(layer: Path) -> None:
    assert "`moec compile --emit=graph` prints that of a `.moe` file" in run("opt", layer).stderr


@pytest.mark.parametrize("command", ["trace", "top", "report"])
def test_records_that_are_none_are_named(tmp_path: Path, command: str) -> None:
    path = tmp_path / "other.jsonl"
    path.write_bytes(bytes(range(256)) * 9)
    result = run(command, path)
    assert result.exit_code == 1
    assert str(path) in result.stderr.replace("\n", "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the module holds 0 functions that could be the layer"),
        ("func.func @a() { return }\nfunc.func @b() { return }", "the module holds 2 functions"),
        ("func.func private @a()", "has no body"),
        ("func.func @a() { return }", "no attribute `moe.layer`"),
        (
            'module attributes {moe.layer = "L"} { func.func @a(%x: tensor<4xf32>) { return } }',
            "argument 0 of the layer has no `moe.name`, or no `moe.role`",
        ),
        (
            'module attributes {moe.layer = "L"} { func.func @a(%x: tensor<4xf32> {moe.name = "x", moe.role = "input"})'
            " -> tensor<4xf32> { return %x : tensor<4xf32> } }",
            "result 0 of the layer has no `moe.name`",
        ),
        (
            "module attributes {moe.layer = 1} { func.func @a() { return } }",
            "`moe.layer`, the name of the layer, is no",
        ),
        (
            'module attributes {moe.layer = "L"} { func.func @a(%x: tensor<4xf32> {moe.name = 3, moe.role = "input"}) {'
            " return } }",
            "argument 0 of the layer has the `moe.name` 3 : i64, which is no string",
        ),
    ],
)
def test_ir_that_is_no_layer_is_refused(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "other.mlir"
    file.write_text(text)
    for command in (("compile", file, "--emit=cpu"), ("compile", file, "--training"), ("plan", file)):
        result = run(*command)
        assert result.exit_code == 1, result.output
        assert "E0605" in result.stderr
        assert said in result.stderr
    assert [one.name for one in tmp_path.iterdir()] == ["other.mlir"]


def test_passes_take_the_ir_of_one_layer(tmp_path: Path) -> None:
    result = run("opt", "--pass", "fuse-permutation", given=b"module {}")
    assert result.exit_code == 1
    assert "the module holds 0 functions" in result.stderr


@pytest.mark.parametrize("command", ["compile", "report"])
def test_a_folder_is_no_input(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("", ".", "/"):
        result = run(command, name)
        assert result.exit_code == 1, result.output
        assert "is a folder" in result.stderr
        assert not isinstance(result.exception, ValueError)


@pytest.mark.parametrize("options", [(), ("--emit=graph",)])
def test_a_layer_is_not_replaced_by_what_is_made_of_it(options: tuple[str, ...], layer: Path) -> None:
    result = run("compile", layer, *options, "-o", layer)
    assert result.exit_code == 1
    assert f"cannot write `{layer}`" in result.stderr
    assert layer.read_text() == LAYER


def test_a_journal_is_not_replaced_by_its_report(tmp_path: Path) -> None:
    journal = drifting.write(tmp_path / "journal.html", drifting.records(5, 8, 2))
    before = journal.read_bytes()
    result = run("report", journal)
    assert result.exit_code == 1
    assert f"cannot write `{journal}`: it is what this command reads; name another file" in result.stderr
    assert journal.read_bytes() == before


def test_a_text_that_cannot_be_written_leaves_nothing(layer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    result = run("compile", layer, "--emit=graph", "-o", layer.parent / "graph.mlir")
    assert result.exit_code == 1
    assert [one.name for one in layer.parent.iterdir()] == ["layer.moe"]


def test_a_layer_comes_through_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(LAYER,))
    writer.start()
    result = run("compile", pipe, "--emit=graph")
    writer.join()
    assert result.exit_code == 0, result.stderr
    assert 'moe.layer = "L"' in result.stdout
    result = run("compile", pipe)
    assert result.exit_code == 1
    assert "E0607" in result.stderr
    assert "name a file with `-o`" in result.stderr
    assert "in place: it is no ordinary file" in run("fmt", pipe).stderr


def test_a_pipe_is_no_artifact_and_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(NotAnArtifact, match="is not a regular file"):
        container.read(pipe)


def test_what_is_wrong_with_a_layer_comes_before_its_output(tmp_path: Path) -> None:
    result = run("compile", tmp_path / "nothing.moe", "-o", tmp_path)
    assert result.exit_code == 1
    assert "E0108" in result.stderr
    assert "E0607" not in result.stderr


def test_a_machine_file_without_a_mesh_is_refused(layer: Path) -> None:
    result = run("compile", layer, "--machine", "nothing.json")
    assert result.exit_code == 1
    assert "E0634" in result.stderr
    assert "`nothing.json` is of no use" in result.stderr


def test_what_was_written_is_named_as_it_is(layer: Path) -> None:
    named = layer.rename(layer.with_name("a[bold]b.moe"))
    result = run("compile", named, "--target", "hls:zcu102,tokens=1", "-o", named.with_suffix(""))
    assert f"wrote {named.with_suffix('')}: " in result.stderr
