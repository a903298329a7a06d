"""Single keys from a terminal, without waiting for the end of a line."""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from types import TracebackType

_UP = dict.fromkeys((b"\x1b[A", b"\x1bOA", b"k"), "up")
_NAMES = _UP | dict.fromkeys((b"\x1b[B", b"\x1bOB", b"\t", b"j"), "down")


class Keyboard:
    """A context in which keys are read one by one; where standard input is no terminal there are none."""

    def __init__(self) -> None:
        self._descriptor = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else None
        self._before: list[object] | None = None

    def __enter__(self) -> Keyboard:
        if self._descriptor is not None:
            self._before = termios.tcgetattr(self._descriptor)
            tty.setcbreak(self._descriptor)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor is not None and self._before is not None:
            termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._before)  # type: ignore[arg-type]

    def wait(self, seconds: float) -> str | None:
        """A key's name, "up", "down" or its character; None where none is pressed for so long."""
        watched = [] if self._descriptor is None else [self._descriptor]
        ready, _, _ = select.select(watched, [], [], seconds)
        if self._descriptor is None or not ready:
            return None
        pressed = os.read(self._descriptor, 16)
        if not pressed:
            return "q"  # the terminal is gone
        return _NAMES.get(pressed) or pressed[:1].decode("ascii", "replace")
