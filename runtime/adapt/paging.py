"""A layer whose packed weights lie in a file, with as many of its experts in memory as its policy allows."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path

from moec.artifact.policy import Page
from moec.errors import AdaptationError, WeightsError
from moec.runtime.adapt.cache import default_folder
from moec.runtime.adapt.mapped import MappedMemory
from moec.runtime.adapt.residency import Moved, Residency
from moec.runtime.adapt.statistics import LoadStatistics
from moec.runtime.packing.weights import PackedWeights


def weights_folder() -> Path:
    """Where the file lies unless another folder is given: beside the cache of variants, on a disk as a rule."""
    return default_folder().parent / "weights"


class Paging:
    """Moves the weights of `store` into a file, and keeps the limit of `page` from then on until `stop`.

    keep  experts that stay, whatever comes; None: those that recent tokens choose most

    Other builds that share the layer's packed weights share this memory; the copies that builds of another layout have
    do not count towards the limit.
    """

    def __init__(
        self,
        store: PackedWeights,
        page: Page,
        statistics: LoadStatistics,
        folder: Path,
        keep: Sequence[int] | None = None,
    ) -> None:
        """Raises AdaptationError where the artifact does not say which bytes are whose, where so little memory does not
        do, and where the file cannot be written."""
        variant = store.kernel.library.manifest.variants[store.kernel.index]
        if not variant.regions:
            raise AdaptationError(f"{store.kernel.library.manifest.layer}: its packed weights are not apart by experts")
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            memory = store.mapped or MappedMemory(int(store.kernel.call("packed_bytes")), folder)
            self._residency = Residency(
                memory, variant.regions, statistics, page.bytes, self._moved, keep, _generation(weakref.ref(store))
            )
        except (OSError, WeightsError) as error:
            raise AdaptationError(f"no weights can lie on disk: {error}") from error
        store.move(memory)
        self._lock = threading.Lock()
        self._reset()
        self._residency.start()

    @property
    def present(self) -> tuple[int, ...]:
        """The experts that are in memory as far as it is known."""
        return self._residency.present

    @property
    def nbytes(self) -> int:
        """Bytes of what is in memory as far as it is known."""
        return self._residency.held

    def take(self) -> Moved | None:
        """All that moved since this was asked last; None where nothing did."""
        with self._lock:
            moved = Moved(tuple(sorted(self._came)), tuple(sorted(self._went)), self._bytes, self._seconds)
            self._reset()
        return moved if moved.came or moved.went else None

    def stop(self) -> None:
        """Let nothing go any more; weights stay where they are."""
        self._residency.stop()

    def _moved(self, moved: Moved) -> None:
        with self._lock:
            self._came.update(moved.came)
            self._went.update(moved.went)
            self._bytes += moved.nbytes
            self._seconds += moved.seconds

    def _reset(self) -> None:
        self._came: set[int] = set()
        self._went: set[int] = set()
        self._bytes, self._seconds = 0, 0.0


def _generation(reference: weakref.ref[PackedWeights]) -> Callable[[], int]:
    """A thread asks, and it must not keep a layer that is dropped."""

    def now() -> int:
        store = reference()
        return store.generation if store is not None else 0

    return now
