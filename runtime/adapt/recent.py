"""The last calls of a layer: how long they take and which builds run them."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moec.runtime.adapt.ring import Batch

_CALLS = 4096
_FEW = 256
_SECONDS = 10.0
"""What was heard longer ago counts only while there are no more than a few others: of short calls few are counted, and
the last thousands of these are those of minutes."""
_FAR = 50.0
"""Times the median: what took longer was stopped by the system, and says nothing about the code."""


@dataclass(frozen=True)
class _Calls:
    """Counted calls, oldest first; `weights`: for how many each stands."""

    tokens: NDArray[np.int64]
    seconds: NDArray[np.float64]
    builds: NDArray[np.int64]
    weights: NDArray[np.int64]

    def __getitem__(self, which: NDArray[np.bool_] | slice) -> _Calls:
        return _Calls(self.tokens[which], self.seconds[which], self.builds[which], self.weights[which])

    def __len__(self) -> int:
        return len(self.tokens)

    def of(self, tokens: tuple[int, int] | None) -> _Calls:
        """Those of so many tokens; None: all."""
        return self if tokens is None else self[(tokens[0] <= self.tokens) & (self.tokens <= tokens[1])]

    def mean(self) -> float:
        return float(np.average(np.minimum(self.seconds, _FAR * np.median(self.seconds)), weights=self.weights))


class RecentCalls:
    """Hears of calls that have ended (`LoadStatistics.listen`) and keeps the last few thousand that were counted."""

    def __init__(self, most: int = _CALLS, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock = most, clock
        self._lock = threading.Lock()
        self._heard: deque[tuple[float, _Calls]] = deque()
        self._kept = 0
        self._new = 0

    def heard(self, batch: Batch) -> None:
        now = self._clock()
        with self._lock:
            self._heard.append((now, _Calls(batch.tokens, batch.seconds, batch.variants, batch.weights)))
            self._kept += len(batch)
            self._new += len(batch)
            while len(self._heard) > 1:
                then, oldest = self._heard[0]
                enough = self._most if now - then <= _SECONDS else min(_FEW, self._most)
                if self._kept - len(oldest) < enough:
                    break
                self._heard.popleft()
                self._kept -= len(oldest)

    def within(self, tokens: tuple[int, int] | None) -> tuple[float, float]:
        """For calls of so many tokens (None: all): their share of all calls, and the mean of their seconds."""
        calls = self._last()
        chosen = calls.of(tokens)
        return (float(chosen.weights.sum() / calls.weights.sum()), chosen.mean()) if len(chosen) else (0.0, 0.0)

    def sizes(self, tokens: tuple[int, int] | None) -> tuple[int, ...]:
        """The numbers of tokens that these calls had, those that take most of the time last."""
        chosen = self._last().of(tokens)
        values, places = np.unique(chosen.tokens, return_inverse=True)
        order = np.argsort(np.bincount(places, chosen.seconds * chosen.weights, len(values)), kind="stable")
        return tuple(values[order].tolist())

    def seconds(self, build: int) -> float:
        """The mean of the seconds of the calls that the build of this number ran; 0 without any."""
        calls = self._last()
        ran = calls[calls.builds == build]
        return ran.mean() if len(ran) else 0.0

    def latency(self) -> Mapping[str, float] | None:
        """The 50th and 99th percentile, in ms, of the calls since this was asked last; None without calls."""
        calls = self._last()
        with self._lock:
            new, self._new = self._new, 0
        if not new:
            return None
        calls = calls[-new:]
        order = np.argsort(calls.seconds)
        below = np.cumsum(calls.weights[order])
        p50, p99 = calls.seconds[order[np.searchsorted(below, np.array((0.5, 0.99)) * below[-1])]] * 1e3
        return {"p50": float(p50), "p99": float(p99)}

    def _last(self) -> _Calls:
        with self._lock:
            heard = tuple(calls for _, calls in self._heard)
        none = np.zeros(0, np.int64)
        return _Calls(
            np.concatenate((none, *(one.tokens for one in heard))),
            np.concatenate((np.zeros(0), *(one.seconds for one in heard))),
            np.concatenate((none, *(one.builds for one in heard))),
            np.concatenate((none, *(one.weights for one in heard))),
        )[-self._most :]
