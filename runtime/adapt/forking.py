"""What must be put right in a forked child: it has copies of everything, but not of other threads and their work."""

from __future__ import annotations

import os
import weakref
from functools import cache
from typing import Protocol


class Forked(Protocol):
    """Something that another thread may have been changing when the process was forked."""

    def forked(self) -> None:
        """Called in the child, which has one thread: make locks anew, and forget other threads."""


def in_children(one: Forked) -> None:
    """Call `one.forked()` in each forked child, as long as `one` lives; those first that were given first."""
    found = _found()
    found[:] = [reference for reference in found if reference() is not None]
    found.append(weakref.ref(one))


@cache
def _found() -> list[weakref.ref[Forked]]:
    found: list[weakref.ref[Forked]] = []

    def forked() -> None:
        for reference in found:
            one = reference()
            if one is not None:
                one.forked()

    os.register_at_fork(after_in_child=forked)
    return found
