"""What takes long to make and is the same for several tests: made once in a test run, by whichever process needs it."""

from __future__ import annotations

import fcntl
import hashlib
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from torch_mlir import ir

from moec.backends.cpu import codegen

_FOLDER: list[Path] = []


def share(folder: Path) -> None:
    """Keep what is made from now on in `folder`, which all processes of the run have."""
    folder.mkdir(exist_ok=True)
    _FOLDER[:] = [folder]


def once(name: str, make: Callable[[Path], object]) -> Path:
    """A file of this name, which `make` writes where it is told to; who wants it meanwhile waits.

    name  stands for all that the content depends on: a digest.  An exception of `make` is raised, and makes nothing
    """
    path = _FOLDER[0] / name
    with path.with_name(f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            part = path.with_name(f"part.{name}")
            make(part)
            part.replace(path)
    return path


@contextmanager
def one_machine_code() -> Iterator[None]:
    """LLVM does not compile again what a test of this run compiled already: the same module gives the same object."""
    compile_ = codegen.object_file

    def known(module: ir.Module) -> bytes:
        stream = io.BytesIO()
        module.operation.write_bytecode(stream)
        name = f"{hashlib.sha256(stream.getvalue()).hexdigest()}.o"
        return once(name, lambda path: path.write_bytes(compile_(module))).read_bytes()

    with patch.object(codegen, "object_file", known):
        yield
