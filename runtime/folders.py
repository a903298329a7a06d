"""Folders of native code that this process would run: they must belong to this user."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from moec.errors import CacheError


def own_folder(folder: Path, what: str) -> Path:
    """Make the folder if it is missing.  `what` is what lies in it, for messages.

    Raises CacheError where it cannot be made, or where others can write to it.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
    except OSError as error:
        raise CacheError(f"{folder}: no folder for {what}: {error.strerror}") from error
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o022:
        raise CacheError(
            f"{folder} belongs to another user or is writable for others, and what lies in it would be run. "
            "Give a folder of your own, or `chmod 700` it."
        )
    return folder


def cache_home() -> Path:
    """`$XDG_CACHE_HOME/moec`, or that in `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "moec"
