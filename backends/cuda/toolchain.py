"""From CUDA C++ to a cubin, by `nvcc` where there is one and by NVRTC otherwise."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Protocol

from moec.backends.cuda import nvrtc
from moec.backends.cuda.arch import Arch
from moec.backends.cuda.faults import fault

_SECONDS = 600
_SHOWN = 4000

INSTALL = (
    "install NVIDIA's `nvcc` and put it on PATH (or set CUDA_HOME), or `pip install 'moec[cuda]'`, which brings NVRTC; "
    "`moec compile --emit=cuda` prints the source without either"
)


class Compiler(Protocol):
    """Makes cubins."""

    @property
    def name(self) -> str: ...

    def compile(self, source: str, arch: Arch) -> bytes:
        """The cubin of a source for an architecture.  Raises DiagnosticError (E0712) where the compiler fails."""
        ...


@cache
def headers() -> Mapping[str, str]:
    """The headers of the primitives, by the names that sources include them with, such as `moec/mma.cuh`."""
    return dict(_texts(files("moec.backends.cuda") / "include", ""))


def _texts(folder: Traversable, prefix: str) -> Iterator[tuple[str, str]]:
    for entry in sorted(folder.iterdir(), key=lambda e: e.name):
        if entry.is_dir():
            yield from _texts(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith((".cuh", ".h")):
            yield prefix + entry.name, entry.read_text()


def write_headers(folder: Path) -> None:
    """The headers as files below `folder`, for compilers that read them from there."""
    for name, text in headers().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@dataclass(frozen=True)
class Nvcc:
    """NVIDIA's compiler driver; it needs a host compiler too."""

    path: str
    name: str = "nvcc"

    def compile(self, source: str, arch: Arch) -> bytes:
        with tempfile.TemporaryDirectory(prefix="moec-") as folder:
            write_headers(Path(folder) / "include")
            (Path(folder) / "layer.cu").write_text(source)
            command = [
                self.path,
                "-cubin",
                f"-gencode=arch={arch.name.replace('sm', 'compute')},code={arch.name}",
                *OPTIONS,
                "-Iinclude",
                "-o",
                "layer.cubin",
                "layer.cu",
            ]
            try:
                done = subprocess.run(
                    command, cwd=folder, capture_output=True, text=True, timeout=_SECONDS, check=False
                )
            except (OSError, subprocess.TimeoutExpired) as why:
                raise failed(self.name, arch, str(why)) from why
            if done.returncode:
                raise failed(self.name, arch, done.stdout + done.stderr)
            return (Path(folder) / "layer.cubin").read_bytes()


OPTIONS = ("-std=c++17", "-O3", "--expt-relaxed-constexpr")
"""What `nvcc` is told beside the architecture."""


@dataclass(frozen=True)
class Nvrtc:
    """NVIDIA's compiler as a library."""

    library: nvrtc.Library
    name: str = "NVRTC"

    def compile(self, source: str, arch: Arch) -> bytes:
        try:
            return self.library.compile(source, arch.name, headers())
        except nvrtc.NvrtcError as why:
            raise failed(self.name, arch, str(why)) from why


def failed(compiler: str, arch: Arch, said: str) -> Exception:
    note = said.strip()[-_SHOWN:]
    return fault("E0712", f"{compiler} failed on the kernels for {arch.name}", "`moec explain E0712` says more", note)


def find() -> Compiler | None:
    """The compiler of this machine: `nvcc` where there is one, else NVRTC, else None."""
    if path := _nvcc():
        return Nvcc(path)
    found = nvrtc.find()
    return Nvrtc(found) if found is not None else None


def require() -> Compiler:
    """The same.  Raises DiagnosticError (E0711) where there is none."""
    found = find()
    if found is None:
        raise fault("E0711", "there is no CUDA compiler on this machine, and the target needs one", INSTALL)
    return found


def _nvcc() -> str | None:
    if path := shutil.which("nvcc"):
        return path
    homes = (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda")
    candidates = (Path(home) / "bin" / "nvcc" for home in homes if home)
    return next((str(path) for path in candidates if os.access(path, os.X_OK)), None)
