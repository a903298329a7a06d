"""What stands behind `hls:`: a board, and options."""

from __future__ import annotations

from dataclasses import dataclass

from moec.backends.hls.board import BOARDS, find_board
from moec.diagnostics import Diagnostic, Fix, Severity, closest
from moec.errors import DiagnosticError
from moec.fixed.design import Board

TOKENS = 256
"""Tokens of one call where the target does not say how many."""

MOST_TOKENS = 2**16

OPTIONS = ("rtl", "tokens")


@dataclass(frozen=True)
class Target:
    """A board and what is wanted of the project.

    rtl     whether the project has the compute tile as SystemVerilog
    tokens  the most tokens of one call; None: what IR that was compiled for this board says, else `TOKENS`
    """

    board: Board
    rtl: bool = True
    tokens: int | None = None


def read_target(text: str | None) -> Target:
    """`zcu102`, `path/to/board.toml`, or one of them and options: `zcu102,tokens=512,rtl=no`.

    Raises DiagnosticError for what is none.
    """
    if not text:
        raise refused("`--target hls` does not say for which board", f"write `hls:{BOARDS[0]}`, or another board")
    name, *options = text.split(",")
    given: dict[str, str] = {}
    for option in options:
        key, _, value = option.partition("=")
        if key not in OPTIONS:
            near = closest(key, OPTIONS)
            hint = f"did you mean `{near}`?" if near else f"the options are: {', '.join(OPTIONS)}"
            raise refused(f"the target `hls` has no option `{key}`", hint)
        if key in given:
            raise refused(f"the option `{key}` is given twice", "leave one out")
        given[key] = value
    rtl = given.get("rtl", "yes")
    if rtl not in ("yes", "no"):
        raise refused(f"the option `rtl` cannot be `{rtl}`", "write `rtl=yes` or `rtl=no`")
    return Target(find_board(name), rtl == "yes", _tokens(given["tokens"]) if "tokens" in given else None)


def _tokens(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= MOST_TOKENS:
        return int(text)
    raise refused(f"the option `tokens` cannot be `{text}`", f"give it a number from 1 to {MOST_TOKENS}")


def refused(said: str, hint: str) -> DiagnosticError:
    return DiagnosticError([Diagnostic("E0742", Severity.ERROR, said, (), (), Fix(hint))])
