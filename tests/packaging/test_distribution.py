"""What is built for users: the wheel, made from the sdist, holds every module and data file of the rooms."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = {"moec": "moec", "frontend": "moec/frontend", "passes": "moec/passes", "backends": "moec/backends"}
ROOMS |= {"runtime": "moec/runtime"}
SHIPPED = {".py", ".lark", ".moe", ".md", ".typed", ".css", ".js", ".toml"}
GENERATED_FROM = ("cuda/include", "hls/cpp", "hls/rtl/bench")
"""Folders of the backends that ship what generated code is made of, whatever its files are called."""


def expected() -> set[str]:
    """Paths in the wheel of everything that the rooms hold."""
    return {
        f"{inside}/{path.relative_to(ROOT / room).as_posix()}"
        for room, inside in ROOMS.items()
        for path in (ROOT / room).rglob("*")
        if path.suffix in SHIPPED or path.name == "py.typed" or (path.is_file() and _of_generated_code(path))
        if "__pycache__" not in path.parts
    }


def _of_generated_code(path: Path) -> bool:
    return any(path.is_relative_to(ROOT / "backends" / folder) for folder in GENERATED_FROM)


def build(kind: str, folder: Path) -> Path:
    """Run the build backend in `folder`, a copy of the sources, without touching the network."""
    code = f"import os; os.chdir({str(folder)!r}); from setuptools import build_meta as b; print(b.build_{kind}('out'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "out" / done.stdout.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names inside the wheel that is built from the sdist."""
    sources = tmp_path_factory.mktemp("sources")
    for room in ROOMS:
        shutil.copytree(ROOT / room, sources / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, sources)
    unpacked = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(build("sdist", sources)) as archive:
        archive.extractall(unpacked, filter="data")
    (top,) = unpacked.iterdir()
    with zipfile.ZipFile(build("wheel", top)) as archive:
        return set(archive.namelist())


def test_nothing_is_missing(wheel: set[str]) -> None:
    assert not expected() - wheel


def test_nothing_else_is_installed(wheel: set[str]) -> None:
    strangers = {name for name in wheel - expected() if ".dist-info/" not in name}
    assert not strangers


def test_only_moec_is_a_top_level_package(wheel: set[str]) -> None:
    tops = {name.split("/")[0] for name in wheel}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"moec"}


def test_constraints_pin_torch_and_admit_nothing_of_cuda_but_a_disassembler() -> None:
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    names = {pin.partition("==")[0].lower() for pin in pins}
    assert all("==" in pin for pin in pins)
    assert "torch==2.13.0" in pins
    of_cuda = {name for name in names if name.startswith(("nvidia", "cuda", "triton"))}
    assert of_cuda == {"nvidia-cuda-nvdisasm"}
