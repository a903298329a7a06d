"""Boards: those that come with moec, and those that a user describes in a file."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path

from moec.diagnostics import Diagnostic, Fix, Severity, closest
from moec.errors import DiagnosticError
from moec.fixed.data import read_board
from moec.fixed.design import Board

BOARDS = ("zcu102", "kv260", "u280")
"""Names of the boards that come with moec, each a file `boards/NAME.toml`."""

MOST_BYTES = 64 * 1024
"""The most that a board's file may have."""


def find_board(said: str) -> Board:
    """The board of this name, or of the file at this path, which ends in `.toml`.

    Raises DiagnosticError for a name that there is not, and for a file that cannot be read or says something wrong.
    """
    if said.endswith(".toml"):
        return _of_file(Path(said))
    if said not in BOARDS:
        near = closest(said, BOARDS)
        hint = f"did you mean `{near}`?" if near else f"the boards are: {', '.join(BOARDS)}; or name a .toml file"
        raise _refused("E0740", f"there is no board `{said}`", hint)
    text = (resources.files("moec.backends.hls") / "boards" / f"{said}.toml").read_text()
    return read_board({"platform": None, **tomllib.loads(text)})


def _of_file(path: Path) -> Board:
    hint = "write it as backends/hls/boards/zcu102.toml is; docs/fpga.md says what each field means"
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise ValueError(f"it has more than {MOST_BYTES} bytes")
        return read_board({"platform": None, **tomllib.loads(data.decode())})
    except OSError as why:
        raise _refused("E0740", f"cannot read the board's file `{path}`: {why.strerror}", hint) from why
    except ValueError as why:  # bad TOML and bad UTF-8 are ValueErrors too
        raise _refused("E0741", f"`{path}` describes no board: {why}", hint) from why


def _refused(code: str, said: str, hint: str) -> DiagnosticError:
    return DiagnosticError([Diagnostic(code, Severity.ERROR, said, (), (), Fix(hint))])
