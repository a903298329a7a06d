"""Machine code that was made before, to be used again where the same would be made."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from moec.writing import replace_file

LARGEST = 64 * 2**20
"""Bytes of object code that are kept: about a hundred layers."""


class Known(Protocol):
    """Object files by digests of all that they depend on."""

    def get(self, name: str) -> bytes | None: ...

    def put(self, name: str, data: bytes) -> None: ...


class Objects:
    """Object files by what they were made from; those that were not used for longest go.

    largest  bytes that are kept, in memory and in the folder
    folder   where they outlive the process; nobody else may be able to write to it, as what lies in it is run.  None:
             they are kept in memory only
    """

    def __init__(self, largest: int = LARGEST, folder: Path | None = None) -> None:
        self._largest, self._folder = largest, folder
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0

    def get(self, name: str) -> bytes | None:
        found = self._kept.get(name)
        if found is not None:
            self._kept.move_to_end(name)
        elif self._folder is not None and (found := _read(self._folder / name)) is not None:
            self._keep(name, found)
        return found

    def put(self, name: str, data: bytes) -> None:
        """Keep `data` under a digest of all that it depends on."""
        self._keep(name, data)
        if self._folder is not None:
            with contextlib.suppress(OSError):  # a full disk: then it is made again another time
                _write(self._folder / name, data)
                _shrink(self._folder, self._largest)

    @property
    def kept(self) -> Mapping[str, bytes]:
        """Those in memory."""
        return dict(self._kept)

    def _keep(self, name: str, data: bytes) -> None:
        self._bytes += len(data) - len(self._kept.pop(name, b""))
        self._kept[name] = data
        while self._bytes > self._largest:
            self._bytes -= len(self._kept.popitem(last=False)[1])


@dataclass(frozen=True)
class Lent:
    """Objects, and besides those that an artifact brings along, which are for compiling that artifact alone: what is in
    one that somebody else made is not to get into others."""

    own: Known
    brought: Mapping[str, bytes]

    def get(self, name: str) -> bytes | None:
        brought = self.brought.get(name)
        return brought if brought is not None else self.own.get(name)

    def put(self, name: str, data: bytes) -> None:
        self.own.put(name, data)


def _read(path: Path) -> bytes | None:
    """What was written; None where there is nothing, or where it is damaged."""
    try:
        content = path.read_bytes()
        os.utime(path)
    except OSError:
        return None
    digest, data = content[:32], content[32:]
    return data if hashlib.sha256(data).digest() == digest else None


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    replace_file(path, hashlib.sha256(data).digest() + data)


def _shrink(folder: Path, largest: int) -> None:
    found = []
    for path in folder.iterdir():
        with contextlib.suppress(OSError):  # another process may have removed it
            status = path.stat()
            found.append((status.st_mtime_ns, status.st_size, path))
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= largest:
            break
        with contextlib.suppress(OSError):
            path.unlink()
            total -= size
