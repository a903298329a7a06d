"""Writes the load of a layer to a trace file, which the compiler takes as `routing = trace("...")`."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import TracebackType

import numpy as np

from moec.runtime.adapt.ring import Batch
from moec.runtime.adapt.statistics import LoadStatistics
from moec.trace import Header, Sample, TraceWriter, size_class

_INTERVAL = 0.25


class Recorder:
    """Records until `stop`: one sample for all calls of each `interval` seconds.

    Calls that were not counted are in all of its numbers, by those that stand for them; the first ones are all counted.

    What fails (a full disk) does not touch the calls: recording ends, and `stop` raises it.
    """

    def __init__(self, statistics: LoadStatistics, path: str | Path, interval: float = _INTERVAL) -> None:
        self._statistics = statistics
        self._interval = interval
        self._writer = TraceWriter(path, Header(statistics.layer, statistics.experts, statistics.slots))
        self._lock = threading.Lock()
        self._failure: OSError | None = None
        self._clear(time.monotonic())
        statistics.fold()  # calls that ended before do not belong to the recording
        statistics.sampling.start_over()
        statistics.listen(self._heard)

    def stop(self) -> None:
        """Write what is left and close the file.  Raises OSError if something could not be written."""
        self._statistics.fold()
        self._statistics.ignore(self._heard)
        with self._lock:
            self._write(time.monotonic())
            self._writer.close()
        if self._failure is not None:
            raise self._failure

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _heard(self, batch: Batch) -> None:
        with self._lock:
            self._counts += batch.weights @ batch.chosen
            self._tokens += int(batch.weights @ batch.tokens)
            self._calls += int(batch.weights.sum())
            for tokens, weight in zip(batch.tokens.tolist(), batch.weights.tolist(), strict=True):
                size = size_class(tokens)
                self._histogram[size] = self._histogram.get(size, 0) + weight
            now = time.monotonic()
            if now - self._begin >= self._interval:
                self._write(now)

    def _write(self, now: float) -> None:
        if self._calls and self._failure is None:
            sample = Sample(
                time.time(),
                self._tokens,
                tuple(self._counts.tolist()),
                self._calls,
                dict(sorted(self._histogram.items())),
            )
            try:
                self._writer.write(sample)
            except OSError as error:
                self._failure = error
        self._clear(now)

    def _clear(self, now: float) -> None:
        self._begin = now
        self._counts = np.zeros(self._statistics.experts, np.int64)
        self._tokens = self._calls = 0
        self._histogram: dict[int, int] = {}
