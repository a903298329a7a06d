"""Specialised artifacts on the disk, so that no layer is compiled twice for the same thing.

An artifact is native code, so the folder must belong to this user and nobody else may write to it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from moec.artifact.container import Artifact, read
from moec.artifact.specialisation import Specialisation
from moec.errors import ArtifactError
from moec.runtime.folders import cache_home, own_folder

LARGEST = 1 << 30
"""Bytes that a cache keeps."""


def default_folder() -> Path:
    """`$XDG_CACHE_HOME/moec/variants`, or that in `~/.cache`."""
    return cache_home() / "variants"


def key(base: str, specialisation: Specialisation, variant: str, compiler: str) -> str:
    """What names a specialised artifact: all that its code depends on.

    base: the SHA-256 of the artifact that is specialised; variant: the instruction set; compiler: name and version.
    """
    told = "\n".join((base, specialisation.to_json(), variant, compiler))
    return hashlib.sha256(told.encode()).hexdigest()[:40]


class Cache:
    """A folder of specialised artifacts; those that were not used for longest go when there are too many bytes."""

    def __init__(self, folder: Path, largest: int = LARGEST) -> None:
        """Raises CacheError for a folder that others can write to, or that cannot be made."""
        self.folder = own_folder(folder, "compiled variants")
        self._largest = largest

    @property
    def objects(self) -> Path:
        """Where the compiler keeps pieces of code that several artifacts may have in common."""
        return self.folder / "objects"

    def get(self, name: str, base: str) -> Artifact | None:
        """The artifact of this key, checked; one that is damaged or not made from `base` is removed."""
        path = self._path(name)
        try:
            artifact = read(path)
        except FileNotFoundError:
            return None
        except (ArtifactError, OSError):
            artifact = None
        if artifact is None or artifact.manifest.base != base:
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return artifact

    def has(self, name: str) -> bool:
        """Whether there is a file of this key; `get` may still find that it is damaged."""
        return self._path(name).exists()

    @contextmanager
    def adding(self, name: str) -> Iterator[Path]:
        """A path to write a new artifact to; it takes its place at the end, if it was written and nothing failed."""
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=".new-") as folder:
            made = Path(folder) / "variant.so"
            yield made
            if made.exists():
                made.replace(self._path(name))
                self._shrink()

    def remove(self, name: str) -> None:
        """Forget an artifact, because it turned out to be wrong."""
        with contextlib.suppress(OSError):
            self._path(name).unlink()

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.so"

    def _shrink(self) -> None:
        found = []
        for path in self.folder.glob("*.so"):
            with contextlib.suppress(OSError):
                status = path.stat()
                found.append((status.st_mtime_ns, status.st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found)[:-1]:  # the newest stays, however large
            if total <= self._largest:
                break
            with contextlib.suppress(OSError):
                path.unlink()
                total -= size
