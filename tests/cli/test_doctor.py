"""`moec doctor` names what is missing and how to get it."""

from __future__ import annotations

from importlib import metadata

import pytest
from typer.testing import CliRunner

from moec.cli import doctor
from moec.cli.app import app


def test_a_complete_machine_passes() -> None:
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 0, result.output
    for finding in doctor.examine():
        assert finding.what in result.output
        assert not finding.fix


def test_a_missing_package_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    known = metadata.version

    def version(name: str) -> str:
        if name == "torch-mlir":
            raise metadata.PackageNotFoundError(name)
        return known(name)

    monkeypatch.setattr(metadata, "version", version)
    result = CliRunner().invoke(app, ["doctor"], env={"COLUMNS": "200"})
    assert result.exit_code == 1
    assert "pip install 'moec[compiler]'" in result.output


def test_without_a_linker_both_remedies_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (linker,) = [finding for finding in doctor.examine() if finding.what == "linker"]
    assert "C compiler" in linker.fix
    assert "moec[linker]" in linker.fix
