"""What an adapting layer did and why, as JSON Lines: one file for each, for `moec top` and `moec report`."""

from __future__ import annotations

import itertools
import json
import logging
import math
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moec.journal.folder import default_folder

LARGEST = 64 * 2**20
"""Bytes, after which the file is set aside as `NAME.old` and begun again with its first line."""

_LOG = logging.getLogger("moec.adapt")
_NUMBERS = itertools.count()


def default_path(layer: str) -> Path:
    """A new file's name for a layer of this process."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    name = re.sub(r"\W", "_", layer)[:64]
    return default_folder() / f"{name}-{stamp}-{os.getpid()}-{next(_NUMBERS)}.jsonl"


class Journal:
    """Appends records to `path`, each in one write, so that a reader sees whole lines.

    A journal that cannot be written (no room, no rights) is given up: that is logged, and `failure` says why.
    """

    def __init__(self, path: Path, largest: int = LARGEST) -> None:
        self.path = path
        self.failure: str | None = None
        self._largest = largest
        self._first = b""
        self._descriptor: int | None = None
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._open()
        except OSError as error:
            self._give_up(error)

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one record."""
        if self._descriptor is None:
            return
        line = json.dumps(_finite(record)).encode() + b"\n"
        self._first = self._first or line
        try:
            if os.fstat(self._descriptor).st_size + len(line) > self._largest:
                self.close()
                self.path.replace(self.path.with_name(self.path.name + ".old"))
                self._open()
                if line is not self._first:
                    self._append(self._first)
            self._append(line)
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        """What is written from now on is lost."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _open(self) -> None:
        self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def _append(self, line: bytes) -> None:
        if self._descriptor is not None:
            written = os.write(self._descriptor, line)
            if written < len(line):
                raise OSError(f"only {written} of {len(line)} bytes were written")

    def _give_up(self, error: OSError) -> None:
        self.failure = str(error)
        _LOG.warning("the journal %s is given up: %s", self.path, error)
        self.close()


def _finite(value: Any) -> Any:
    """The same with null for NaN and infinities, which JSON does not know."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return value
