"""Writes projects and builds them with g++."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest

from moec.backends.hls.cpp.project import files
from moec.fixed.design import Design


def ap_types() -> str:
    """The folder with `ap_int.h`; skips where there is none, or no compiler."""
    found = importlib.util.find_spec("hls4ml")
    if found is None or found.submodule_search_locations is None:
        pytest.skip("needs hls4ml, for the headers ap_*.h")
    for tool in ("g++", "make"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}")
    return str(Path(found.submodule_search_locations[0]) / "templates" / "vivado" / "ap_types")


def write(design: Design, folder: Path) -> None:
    for path, data in files(design, rtl=False).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)


def make(folder: Path, target: str, flags: str = "-O0 -g1") -> subprocess.CompletedProcess[str]:
    """`make TARGET` in a project; warnings are errors, but for those about the vendor's headers."""
    strict = "-Wall -Wextra -Werror -Wno-uninitialized -Wno-maybe-uninitialized"
    command = ["make", target, f"AP_TYPES={ap_types()}", f"CXXFLAGS={flags} {strict}"]
    return subprocess.run(command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
