"""Which experts' weights are in memory: those that calls use most, within a number of bytes.

An expert comes into memory when a call needs it: the layer's code asks for all that it misses at once.  Behind the
calls, experts are let go until the rest fits: those first whose third last use is longest ago (LRU-3 of O'Neil et al.,
"The LRU-K page replacement algorithm for database disk buffering", 1993).  That has no time scale of its own: new hot
experts win after three calls, however long the old ones were hot, and an expert that is used once now and then does not
displace others.  So what stays follows the load, calls never wait for a decision, and bits do not depend on it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from moec.artifact.manifest import ExpertRegion
from moec.errors import WeightsError
from moec.runtime.adapt.mapped import MappedMemory, Range
from moec.runtime.adapt.ring import Batch
from moec.runtime.adapt.statistics import LoadStatistics

_INTERVAL = 0.02
"""Seconds between looks at what calls have touched."""
_USES = 3
"""How many last uses of an expert are remembered."""
_SWEEP_INTERVAL = 1.0
"""Seconds between looks at what really is in memory."""


@dataclass(frozen=True)
class Moved:
    """Experts came into memory as calls touched them, others were let go.  `nbytes`: of those that were."""

    came: tuple[int, ...]
    went: tuple[int, ...]
    nbytes: int
    seconds: float


class Residency:
    """Keeps the experts of one layer within `limit` bytes, from `start` to `stop`.

    keep        experts that stay, whatever comes; None: those that recent calls use most
    generation  a number that changes with the weights: they have been written then, and so are in memory

    A call that needs more experts than fit holds more than the limit until it ends.  What lies behind other weights may
    be read ahead with them; it is let go of within a second or two.  Where a file is kept in pieces of up to 2 MiB,
    those that an expert shares with one that stays, stay.
    """

    def __init__(
        self,
        memory: MappedMemory,
        regions: Sequence[ExpertRegion],
        statistics: LoadStatistics,
        limit: int,
        report: Callable[[Moved], None],
        keep: Sequence[int] | None = None,
        generation: Callable[[], int] = lambda: 0,
    ) -> None:
        """Raises WeightsError where not even one expert fits beside what always stays."""
        self._memory = memory
        self._statistics = statistics
        self._limit = limit
        self._report = report
        self._generation = generation
        self._written = generation()
        self._kept = None if keep is None else np.isin(np.arange(statistics.experts), keep)
        self._ranges: list[list[Range]] = [[] for _ in range(statistics.experts)]
        for region in regions:
            for place, expert in enumerate(region.experts):
                if expert >= 0:
                    begin = region.offset + place * region.stride
                    self._ranges[expert].append((begin, begin + region.stride))
        self._bytes = np.array([sum(end - begin for begin, end in found) for found in self._ranges], np.int64)
        self._always = memory.nbytes - int(self._bytes.sum())
        if self._always + int(self._bytes.max(initial=0)) > limit:
            raise WeightsError(
                f"{limit:,} bytes are too few: {self._always:,} always stay, and an expert has {self._bytes.max():,}"
            )
        self._present = np.ones(statistics.experts, bool)  # whatever was packed is in memory
        self._came = np.zeros(statistics.experts, bool)
        self._unswept = False
        self._calls = 0
        self._uses = np.zeros((_USES, statistics.experts), np.int64)  # the number of the call, the last use first
        self._changed = threading.Event()
        self._ending = False
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @property
    def present(self) -> tuple[int, ...]:
        """The experts that are in memory as far as it is known."""
        with self._lock:
            return tuple(np.flatnonzero(self._present).tolist())

    @property
    def held(self) -> int:
        """Bytes of the layer's weights that are in memory as far as it is known."""
        with self._lock:
            return self._always + int(self._bytes[self._present].sum())

    @property
    def nbytes(self) -> int:
        """Bytes of the layer's weights that are in memory, as the system counts them."""
        return self._memory.resident([(0, self._memory.nbytes)])

    def start(self) -> None:
        self._statistics.sampling.count_all(True)  # an expert that nobody heard of would stay for good
        self._statistics.listen(self._heard)
        self._thread = threading.Thread(target=self._work, name="moec-residency", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop letting go; weights stay where they are.  May be called twice."""
        if self._ending:
            return
        self._statistics.ignore(self._heard)
        self._ending = True
        self._changed.set()
        if self._thread is not None:
            self._statistics.sampling.count_all(False)
            if self._thread is not threading.current_thread():
                self._thread.join()

    def settle(self) -> Moved:
        """Let go of what is too much."""
        begin = time.monotonic()
        self._statistics.fold()
        with self._lock:
            before = self._present.copy()
            present = np.flatnonzero(before)
            kept = np.zeros_like(before) if self._kept is None else self._kept
            present = present[np.lexsort((*self._uses[:, present], kept[present]))]
            held = self._always + int(self._bytes[present].sum())
            left = np.cumsum(self._bytes[present])
            count = int(np.searchsorted(left, held - self._limit)) + 1 if held > self._limit else 0
            went = present[:count]
            self._present[went] = False
            came = np.flatnonzero(self._came)
            self._came[:] = False
            self._unswept = True
        self._memory.drop(piece for expert in went for piece in self._ranges[expert])
        nbytes = int(self._bytes[went].sum())
        return Moved(tuple(came.tolist()), tuple(went.tolist()), nbytes, time.monotonic() - begin)

    def _heard(self, batch: Batch) -> None:
        touched = batch.chosen.any(0)
        with self._lock:
            for used in batch.chosen > 0:
                self._calls += 1
                self._uses[1:, used] = self._uses[:-1, used]
                self._uses[0, used] = self._calls
            self._came |= touched & ~self._present
            self._present |= touched

    def _work(self) -> None:
        swept = time.monotonic()
        while not self._ending:
            self._statistics.fold()
            self._notice_written()
            if self.held > self._limit:
                self._report(self.settle())
            if self._unswept and time.monotonic() - swept > _SWEEP_INTERVAL:
                swept, self._unswept = time.monotonic(), False
                self._sweep()
            self._changed.wait(_INTERVAL)
            self._changed.clear()

    def _notice_written(self) -> None:
        generation = self._generation()
        if generation != self._written:
            self._written = generation
            with self._lock:
                self._present[:] = True

    def _sweep(self) -> None:
        """Let go of what came along with others.  A call that is just reading such an expert has to read it again."""
        if self.nbytes > self._limit:
            with self._lock:
                absent = np.flatnonzero(~self._present)
            self._memory.drop(piece for expert in absent for piece in self._ranges[expert])
