"""Writing files.  An OSError names the file, also where a disk is full, which the system's own error does not."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Write a file of UTF-8, or to a device or pipe."""
    with _naming(path):
        path.write_text(text, encoding="utf-8")


def replace_file(path: Path, data: bytes, *, keep_mode: bool = False) -> None:
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
