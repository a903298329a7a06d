"""The last calls of a layer: how long they take and which builds run them."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from moec.runtime.adapt.ring import Batch

_CALLS = 4096
_FAR = 50.0
"""Times the median: what took longer was stopped by the system, and says nothing about the code."""


class RecentCalls:
    """Hears of calls that have ended (`LoadStatistics.listen`) and keeps the last few thousand."""

    def __init__(self, most: int = _CALLS) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._tokens = np.zeros(0, np.int64)
        self._seconds = np.zeros(0)
        self._builds = np.zeros(0, np.int64)
        self._new = 0

    def heard(self, batch: Batch) -> None:
        with self._lock:
            self._tokens = np.concatenate((self._tokens, batch.tokens))[-self._most :]
            self._seconds = np.concatenate((self._seconds, batch.seconds))[-self._most :]
            self._builds = np.concatenate((self._builds, batch.variants))[-self._most :]
            self._new += len(batch)

    def within(self, tokens: tuple[int, int] | None) -> tuple[float, float]:
        """For calls of so many tokens (None: all): their share of all calls, and the mean of their seconds."""
        with self._lock:
            chosen = self._chosen(tokens)
            return (float(chosen.mean()), _mean(self._seconds[chosen])) if chosen.any() else (0.0, 0.0)

    def sizes(self, tokens: tuple[int, int] | None) -> tuple[int, ...]:
        """The numbers of tokens that these calls had, those that take most of the time last."""
        with self._lock:
            chosen = self._chosen(tokens)
            values, places = np.unique(self._tokens[chosen], return_inverse=True)
            order = np.argsort(np.bincount(places, self._seconds[chosen], len(values)), kind="stable")
            return tuple(values[order].tolist())

    def seconds(self, build: int) -> float:
        """The mean of the seconds of the calls that the build of this number ran; 0 without any."""
        with self._lock:
            ran = self._builds == build
            return _mean(self._seconds[ran]) if ran.any() else 0.0

    def latency(self) -> Mapping[str, float] | None:
        """The 50th and 99th percentile, in ms, of the calls since this was asked last; None without calls."""
        with self._lock:
            new = self._seconds[-self._new :] if self._new else None
            self._new = 0
        if new is None or not len(new):
            return None
        p50, p99 = np.percentile(new, (50, 99)) * 1e3
        return {"p50": float(p50), "p99": float(p99)}

    def _chosen(self, tokens: tuple[int, int] | None) -> NDArray[np.bool_]:
        if tokens is None:
            return np.ones(len(self._tokens), bool)
        chosen: NDArray[np.bool_] = (tokens[0] <= self._tokens) & (self._tokens <= tokens[1])
        return chosen


def _mean(seconds: NDArray[np.float64]) -> float:
    return float(np.minimum(seconds, _FAR * np.median(seconds)).mean())
