"""Writing files.  An OSError names the file, also where a disk is full, which the system's own error does not."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from moec.errors import MoecError


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of UTF-8."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write a file as `replace_file` does; or to a device or pipe, or where a link leads."""
    if path.is_symlink() or (path.exists() and not path.is_file()):
        with _naming(path):
            path.write_bytes(data)
    else:
        replace_file(path, data, keep_mode=path.exists())


def require_other(output: Path, *inputs: Path | None) -> None:
    """Raises MoecError where `output` is one of the files that are read, which would be lost."""
    if would_lose(output, *inputs):
        raise MoecError(f"cannot write `{output}`: it is what this command reads; name another file with `-o`")


def would_lose(output: Path, *inputs: Path | None) -> bool:
    """Whether writing `output` replaces one of the files that are read."""
    return any(one is not None and one.exists() and output.exists() and one.samefile(output) for one in inputs)


def replace_file(path: Path, data: bytes | memoryview, *, keep_mode: bool = False) -> None:
    """Write a file as a whole or, where that fails, not at all: what was there is left as it is.

    keep_mode  whether the new file gets the permissions of the one that is there
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with _naming(path):
            with beside.open("xb") as file:
                file.write(data)
            if keep_mode:
                shutil.copymode(path, beside)
            os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise type(error)(error.errno, error.strerror, str(path)) from error
