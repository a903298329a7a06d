"""The folder rtl/ of a project."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from moec.backends.hls.cpp import golden as cpp_golden
from moec.backends.hls.rtl import project
from moec.errors import DiagnosticError
from tests.backends.hls.rtl.designs import DESIGNS

NAME = "fixed16"
"""Of the smallest design whose tile has everything: gate, table, logits."""


def test_generated_files(golden: Callable[[str, str], None]) -> None:
    pytest.importorskip("circt", reason="circt is not installed")
    files = project.files(DESIGNS[NAME])
    listed = []
    for path, data in files.items():
        if path.endswith(".bin"):
            listed.append(f"{hashlib.sha256(data).hexdigest()[:16]} {len(data):7} {path}")
        else:
            golden(f"{path.removeprefix('rtl/')}.txt", data.decode())
    golden("vectors.txt", "\n".join(listed) + "\n")


def test_without_circt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(project, "find_spec", lambda name: None)
    with pytest.raises(DiagnosticError) as caught:
        project.files(DESIGNS[NAME])
    assert [found.code for found in caught.value.diagnostics] == ["E0760"]
    assert "rtl=no" in str(caught.value)


@pytest.mark.skipif(shutil.which("verilator") is None, reason="verilator is not installed")
def test_the_test_bench_sees_right_and_wrong(tmp_path: Path) -> None:
    """`make -C rtl sim` passes; with one code of a result changed it does not."""
    pytest.importorskip("circt", reason="circt is not installed")
    design = DESIGNS[NAME]
    vectors = cpp_golden.vectors(design)
    cases = {"tb/cases.h": cpp_golden.header(design, vectors).encode()}
    for path, data in (project.files(design) | vectors | cases).items():
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    make = ["make", "-C", str(tmp_path / "rtl"), "sim"]
    right = subprocess.run(make, capture_output=True, text=True, check=False)
    assert right.returncode == 0, right.stdout + right.stderr
    assert right.stdout.count("PASS") == 4
    result = tmp_path / "tb/vectors/random/result.bin"
    result.write_bytes(bytes([result.read_bytes()[0] ^ 1]) + result.read_bytes()[1:])
    wrong = subprocess.run(make, capture_output=True, text=True, check=False)
    assert wrong.returncode != 0
    assert "FAIL: case random, 8 tokens, 1 codes and 0 logits differ" in wrong.stdout
