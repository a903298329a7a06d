"""Where specialised artifacts come from: the base itself, the cache on disk, or the compiler, in this order."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

from moec.artifact.container import Artifact, read
from moec.artifact.specialisation import Specialisation
from moec.errors import CompilerError, CompilerMissing
from moec.runtime.adapt.background import background
from moec.runtime.adapt.cache import Cache, key
from moec.runtime.adapt.contracts import Compiled
from moec.runtime.adapt.worker import Job, Worker


class Supply:
    """Makes specialised artifacts of one artifact, one after the other, in threads that keep no process from ending.

    base     the artifact as it was loaded
    variant  name of the instruction set that runs
    worker   the compiler
    cache    None: nothing is kept on disk
    """

    def __init__(self, base: Artifact, variant: str, worker: Worker, cache: Cache | None) -> None:
        self._base = base
        self._variant = variant
        self._cache = cache
        self._worker = worker
        self._closed = False

    def expect(self, specialisation: Specialisation) -> None:
        """Start the compiler where only that can make it; what goes wrong is told when it is asked for."""
        background(lambda: self._expect(specialisation), "moec-expect")

    def has(self, specialisation: Specialisation) -> bool:
        """Whether the base holds one of its name, or the cache a file of its key; neither is opened."""
        kept = self._cache is not None and self._cache.has(self._key(specialisation))
        return kept or specialisation.name in self._base.variants

    def submit(self, specialisation: Specialisation) -> Future[Compiled]:
        """Begin; the future ends with a CompilerError or an ArtifactError where nothing came of it."""
        return background(lambda: self._supply(specialisation), "moec-supply")

    def reject(self, specialisation: Specialisation) -> None:
        """What came of it was wrong: do not keep it."""
        if self._cache is not None:
            self._cache.remove(self._key(specialisation))

    def close(self) -> None:
        """Stop what is running; futures that have not ended fail."""
        self._closed = True
        self._worker.close()

    def _supply(self, specialisation: Specialisation) -> Compiled:
        if self._closed:
            raise CompilerError("nothing is compiled any more")
        begin = time.monotonic()
        for source, found in (("prebuilt", self._prebuilt), ("cache", self._cached)):
            artifact = found(specialisation)
            if artifact is not None:
                return Compiled(artifact, source, time.monotonic() - begin)
        with self._output(specialisation) as path:
            try:
                objects = self._cache.objects if self._cache is not None else None
                work = self._worker.compile(Job(Path(self._base.path), specialisation, self._variant, path, objects))
            except CompilerMissing as error:
                raise CompilerMissing(f"{error}; and the artifact has no prebuilt variant like that") from None
            artifact = self._checked(read(path), specialisation)
        return Compiled(artifact, "compiler", time.monotonic() - begin, work)

    def _expect(self, specialisation: Specialisation) -> None:
        there = self._prebuilt(specialisation) or self._cached(specialisation)
        if there is None and not self._closed:
            self._worker.start()

    def _cached(self, specialisation: Specialisation) -> Artifact | None:
        return None if self._cache is None else self._cache.get(self._key(specialisation), self._base.sha256)

    def _prebuilt(self, specialisation: Specialisation) -> Artifact | None:
        """One that does the same, whatever it is called."""
        for artifact in self._base.prebuilt():
            names = [variant.name for variant in artifact.manifest.variants]
            if specialisation.same_code(artifact.manifest.specialisation) and self._variant in names:
                return artifact
        return None

    @contextmanager
    def _output(self, specialisation: Specialisation) -> Iterator[Path]:
        if self._cache is not None:
            with self._cache.adding(self._key(specialisation)) as path:
                yield path
        else:
            with tempfile.TemporaryDirectory(prefix="moec-variant-") as folder:
                yield Path(folder) / "variant.so"

    def _key(self, specialisation: Specialisation) -> str:
        return key(self._base.sha256, specialisation, self._variant, self._base.manifest.compiler)

    def _checked(self, artifact: Artifact, specialisation: Specialisation) -> Artifact:
        """Raise CompilerError if it is not what was asked for."""
        made = artifact.manifest
        if made.base != self._base.sha256:
            raise CompilerError(f"{self._base.path} is another file by now than the one that was loaded")
        if not specialisation.same_code(made.specialisation):
            raise CompilerError(f"the compiler made something else than {specialisation.name}")
        return artifact
