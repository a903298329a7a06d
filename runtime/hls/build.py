"""Libraries that simulate a project, built of its own sources and kept.

What is built runs as native code of this process: a project is as trusted as its author.  Its files are read once and
checked against the manifest, and these very bytes are compiled.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from moec.artifact.hls import Folder
from moec.artifact.simulation import CSIM_FLAGS, CSIM_INCLUDES, CSIM_SOURCES
from moec.errors import ToolchainError
from moec.fixed import verilated
from moec.runtime.folders import cache_home, own_folder

LONGEST = 1800.0
"""Seconds that a build may take."""


def csim(project: Folder) -> Path:
    """The library of the project's C++.

    Raises ToolchainError where the compiler or the headers of `ap_int` are missing, or compiling fails.
    """
    compiler, headers = _compiler(), ap_types()
    version = _run([*compiler, "--version"], Path.cwd())

    def build(folder: Path, output: Path) -> None:
        includes = [f"-I{folder / name}" for name in CSIM_INCLUDES]
        sources = [str(folder / name) for name in CSIM_SOURCES]
        _run([*compiler, *CSIM_FLAGS, *includes, f"-isystem{headers}", *sources, "-o", str(output)], folder)

    return _built(project, "csim", [*compiler, *CSIM_FLAGS, str(headers), version], build)


def rtl(project: Folder) -> Path:
    """The library of the project's SystemVerilog.  Raises ToolchainError where Verilator is missing, or fails."""
    verilator = shutil.which("verilator")
    if verilator is None:
        raise ToolchainError("simulating a project's SystemVerilog takes Verilator: install the package `verilator`")
    version = _run([verilator, "--version"], Path.cwd())

    def build(folder: Path, output: Path) -> None:
        _run(verilated.command(verilator, folder / verilated.FOLDER, output, folder / "build"), folder)

    return _built(
        project, "rtl", [version, *verilated.command(verilator, Path("/"), Path("/library"), Path("/build"))], build
    )


def ap_types() -> Path:
    """The folder of `ap_int.h`: that of Vitis HLS where `XILINX_HLS` names one, or else that of the package hls4ml."""
    places = [Path(os.environ[name]) / "include" for name in ("XILINX_HLS", "XILINX_VITIS_HLS") if os.environ.get(name)]
    found = find_spec("hls4ml")
    if found is not None and found.submodule_search_locations:
        places += [Path(one) / "templates" / "vivado" / "ap_types" for one in found.submodule_search_locations]
    for place in places:
        if (place / "ap_int.h").is_file():
            return place
    raise ToolchainError(
        "simulating a hardware project takes the headers of `ap_int`: install `moec[hls]`, or let XILINX_HLS name the "
        "folder of Vitis HLS"
    )


def _compiler() -> list[str]:
    given = shlex.split(os.environ.get("CXX", ""))
    for command in [given] if given else [["g++"], ["clang++"]]:
        if shutil.which(command[0]):
            return command
    missing = given[0] if given else "g++"
    raise ToolchainError(
        f"simulating a hardware project takes a C++ compiler, and there is no `{missing}`: install g++, or set CXX"
    )


def _built(project: Folder, what: str, command: Sequence[str], build: Callable[[Path, Path], None]) -> Path:
    """The library in the cache, built if it is not there; `command` is all else that it depends on."""
    told = "\n".join((project.sha256, what, *command))
    name = f"{what}-{hashlib.sha256(told.encode()).hexdigest()[:40]}.so"
    kept = own_folder(cache_home() / "simulations", "simulations of hardware projects")
    path = kept / name
    if path.is_file():
        return path
    with tempfile.TemporaryDirectory(dir=kept, prefix=".new-") as temporary:
        folder = Path(temporary) / "project"
        for place, data in project.files.items():
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            (folder / place).write_bytes(data)
        output = Path(temporary) / name
        build(folder, output)
        output.replace(path)
    return path


def _run(command: Sequence[str], folder: Path) -> str:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=LONGEST, check=False)
    except subprocess.TimeoutExpired as error:
        raise ToolchainError(f"`{command[0]}` did not end within {LONGEST:g} seconds") from error
    if done.returncode != 0:
        last = "\n".join((done.stderr or done.stdout).strip().splitlines()[-20:])
        raise ToolchainError(f"`{command[0]}` failed on a hardware project:\n{last}")
    return done.stdout
