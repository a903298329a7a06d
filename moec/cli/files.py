"""Writing what commands make."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Write a file of UTF-8.  Its OSError names the file, also where the disk is full."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise type(error)(error.errno, error.strerror, str(path)) from error


def replace_text(path: Path, text: str) -> None:
    """The same for a file that is there, which is left as it is where writing fails."""
    real = path.resolve()
    beside = real.with_name(f".{real.name}.{secrets.token_hex(8)}")
    try:
        beside.write_text(text, encoding="utf-8", newline="\n")
        shutil.copymode(real, beside)
        os.replace(beside, real)
    except OSError as error:
        raise type(error)(error.errno, error.strerror, str(path)) from error
    finally:
        beside.unlink(missing_ok=True)
