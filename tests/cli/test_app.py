"""The command line as a whole: finding commands, and what a person sees when one fails."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from importlib import import_module, metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from moec.cli import app as cli
from moec.errors import ToolchainError
from tests.journal import drifting


def run(*arguments: str) -> Any:
    return CliRunner().invoke(cli.app, list(arguments))


def failing_with(error: BaseException) -> SimpleNamespace:
    def command() -> None:
        raise error

    return SimpleNamespace(command=command)


@pytest.fixture
def doctor_raises(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the command `doctor` raise what it is called with."""

    def replace(error: BaseException) -> None:
        monkeypatch.setattr(cli, "import_module", lambda name: failing_with(error))

    return replace


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_explains_itself(name: str) -> None:
    assert (import_module(f"moec.cli.{name}").command.__doc__ or "").strip()
    result = run(name, "--help")
    assert result.exit_code == 0, result.output
    assert "Usage:" in result.output


def test_help_lists_every_command() -> None:
    listing = run("--help").output
    assert all(f" {name} " in listing for name in cli.COMMANDS)


def test_version() -> None:
    assert run("--version").output == f"moec {metadata.version('moec')}\n"


def test_unknown_command_is_a_usage_error() -> None:
    result = run("compiel")
    assert result.exit_code == 2
    assert "compiel" in result.output
    assert "Did you mean 'compile'?" in result.output
    assert "bug" not in result.output


def test_unknown_option_is_a_usage_error() -> None:
    result = run("doctor", "--nothing")
    assert result.exit_code == 2
    assert "--nothing" in result.output


def test_moec_errors_are_messages_without_a_traceback(doctor_raises: Any) -> None:
    doctor_raises(ToolchainError("no linker [cc]"))
    result = run("doctor")
    assert result.exit_code == 1
    assert result.stderr == "error: no linker [cc]\n"


def test_missing_files_are_messages(doctor_raises: Any) -> None:
    doctor_raises(FileNotFoundError(2, "No such file or directory", "layer.moe"))
    result = run("doctor")
    assert result.exit_code == 1
    assert result.stderr == "error: layer.moe: No such file or directory\n"


def test_bugs_keep_their_traceback_and_say_how_to_report(doctor_raises: Any) -> None:
    doctor_raises(ZeroDivisionError("oops"))
    result = run("doctor")
    assert isinstance(result.exception, ZeroDivisionError)
    assert result.exception.__notes__ == [cli.BUG]


def test_interrupt_ends_quietly(doctor_raises: Any) -> None:
    doctor_raises(KeyboardInterrupt())
    result = run("doctor")
    assert result.exit_code == 130
    assert result.stderr == "interrupted\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_end_leaves_no_temporary_files(number: int, tmp_path: Path) -> None:
    code = (
        "import sys, tempfile, time, types, moec.__main__ as m, moec.cli.app as a\n"
        "def command():\n"
        "    with tempfile.TemporaryDirectory():\n"
        "        print(flush=True); time.sleep(60)\n"
        "a.import_module = lambda name: types.SimpleNamespace(command=command)\n"
        "sys.argv = ['moec', 'doctor']; m.main()"
    )
    started = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, env=os.environ | {"TMPDIR": str(tmp_path)}
    )
    assert started.stdout is not None
    started.stdout.readline()
    assert any(tmp_path.iterdir())
    started.send_signal(number)
    started.communicate(timeout=60)
    assert started.returncode == 128 + number
    assert not any(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="the system has no /dev/full")
@pytest.mark.parametrize("arguments", [["--help"], ["doctor", "--help"]])
def test_help_that_cannot_be_written_is_no_bug(arguments: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "moec", *arguments], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 1
    assert done.stderr == "error: what this command prints cannot be written: No space left on device\n"


def test_light_commands_import_nothing_heavy() -> None:
    code = (
        "import sys, moec.__main__ as m; sys.argv = ['moec', '--help']\n"
        "try: m.main()\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'torch_mlir', 'lark', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_watching_needs_no_compiler(tmp_path: Path) -> None:
    journal = drifting.write(tmp_path / "j.jsonl", drifting.records(5, 8, 2))
    code = (
        "import sys, moec.__main__ as m\n"
        "for name in ('torch', 'torch_mlir', 'lark', 'numpy', 'tvm_ffi'): sys.modules[name] = None\n"
        "for command in ('top', 'report'):\n"
        f"    sys.argv = ['moec', command, {str(journal)!r}]\n"
        "    try: m.main()\n    except SystemExit as end: assert not end.code, end.code\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "OLMoE" in done.stdout
    assert (tmp_path / "j.html").exists()
