"""Makes a shared library of object files with whatever linker the machine has."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from moec.errors import ToolchainError

EXPORTS = "{ global: __tvm_ffi_*; local: *; };\n"
"""Version script: what of a library other code may see."""

_FLAGS = ("--version-script=exports.map", "--build-id=none", "-z", "noexecstack", "-z", "relro", "-z", "now")
_SECONDS = 120

INSTALL = (
    "no linker was found: install one with `apt install binutils` (Debian, Ubuntu), `dnf install binutils` (Fedora), "
    "or `pip install ziglang`"
)


@dataclass(frozen=True)
class Linker:
    """A way to call a linker; `driver` ones are compilers that take linker options behind -Wl."""

    name: str
    command: tuple[str, ...]
    driver: bool

    def arguments(self, sources: Sequence[str], target: str) -> list[str]:
        if not self.driver:
            return [*self.command, "-shared", *_FLAGS, "-o", target, *sources]
        options = [f"-Wl,{','.join(_FLAGS)}"]
        return [*self.command, "-shared", "-nostdlib", *options, "-o", target, *sources]


def linkers() -> Iterator[Linker]:
    """Every linker of this machine, the preferred one first.  Plain ones come first: they need no C library."""
    for name in ("ld", "ld.lld"):
        if path := shutil.which(name):
            yield Linker(name, (path,), driver=False)
    for name in ("cc", "clang", "gcc"):
        if path := shutil.which(name):
            yield Linker(name, (path,), driver=True)
    if importlib.util.find_spec("ziglang"):
        yield Linker("ziglang", (sys.executable, "-m", "ziglang", "cc"), driver=True)


def link(object_files: Sequence[bytes], linker: Linker | None = None) -> bytes:
    """A shared library that exports the `__tvm_ffi_*` symbols of object files and nothing else.

    The same objects and linker give the same bytes.  Raises ToolchainError when there is no linker or it fails.
    """
    linker = linker or next(linkers(), None)
    if linker is None:
        raise ToolchainError(INSTALL)
    with tempfile.TemporaryDirectory(prefix="moec-") as folder:
        names = [f"layer{number}.o" for number in range(len(object_files))]
        for name, content in zip(names, object_files, strict=True):
            (Path(folder) / name).write_bytes(content)
        (Path(folder) / "exports.map").write_text(EXPORTS)
        # Relative names, so that no path of this machine can reach the file.
        command = linker.arguments(names, "layer.so")
        environment = {**os.environ, "SOURCE_DATE_EPOCH": "0", "LC_ALL": "C"}
        try:
            done = subprocess.run(
                command, cwd=folder, env=environment, capture_output=True, text=True, timeout=_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as why:
            raise ToolchainError(f"the linker {linker.name} could not be run: {why}") from why
        if done.returncode:
            raise ToolchainError(f"the linker {linker.name} failed ({done.returncode}): {done.stderr.strip()[-2000:]}")
        return (Path(folder) / "layer.so").read_bytes()
