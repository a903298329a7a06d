"""Reading source files, with bounds."""

from __future__ import annotations

from pathlib import Path

from moec.artifact.elf import is_library
from moec.diagnostics import Collector, Source
from moec.errors import DiagnosticError
from moec.frontend.parser import LARGEST

MOST_BYTES = 4 * LARGEST
"""As many as LARGEST characters of UTF-8 can take."""


class Unreadable(Exception):
    """Why a file cannot be read, and what to do about it."""

    def __init__(self, why: str, fix: str = "check the path") -> None:
        super().__init__(why)
        self.fix = fix


def read_text(path: Path) -> str:
    """The text of a UTF-8 file; line ends are left as they are.  Raises Unreadable."""
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except IsADirectoryError:
        raise Unreadable("it is a folder", "give the file in it") from None
    except OSError as error:
        raise Unreadable((error.strerror or "it cannot be opened").lower()) from None
    except ValueError:
        raise Unreadable("the path holds a null character") from None
    if len(data) > MOST_BYTES:
        raise Unreadable(f"it has more than {MOST_BYTES:,} bytes", "give a `.moe` file; no layer needs one as large")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        why = f"it is not UTF-8 text (byte {error.start}, in line {line})"
        raise Unreadable(why, "give a `.moe` file, saved as UTF-8") from None


def read_source(path: Path) -> Source:
    """A file as a source.  Raises DiagnosticError if it cannot be read."""
    try:
        return Source(str(path), read_text(path))
    except Unreadable as why:
        found = Collector()
        fix = why.fix
        if is_library(path):
            fix = "give the `.moe` file; of an artifact there is `moec inspect` and `moec plan`"
        found.error("E0108", f"cannot read `{path}`: {why}", None, fix=fix)
        raise DiagnosticError(found.diagnostics) from None
