"""What the load of a layer is: which experts its tokens choose, how many tokens its calls have, what was dropped.

Calls that take long are all counted, of short ones some, which stand for the others (`Sampling`).  Recent calls count
more than earlier ones: behind every call that is counted the weight of all before it shrinks by the same factor, to one
half after `half_life` of them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from moec.artifact.manifest import Manifest
from moec.errors import AdaptationError
from moec.runtime.adapt.forking import in_children
from moec.runtime.adapt.ring import Batch, Ring, Row
from moec.runtime.adapt.sampling import BIT_LENGTHS, Sampling, bit_lengths

if TYPE_CHECKING:
    from moec.runtime.adapt.recorder import Recorder

HALF_LIFE = 64
"""Calls that are counted, after which one counts half."""
_GONE = 4
"""Half-lives, after which an expert that was not chosen counts as empty."""
_TELLING = 32
"""Calls that must be folded in at once for the time of that to tell what counting costs."""
_LEARNING = 0.25
_FAR = 4.0
_FIRST_FOLDING = 1e-6
_TAKING = 3.0
"""Times what getting a row takes: what is not timed, such as counting in native code and giving the row, included."""

Listener = Callable[[Batch], None]
"""Hears of calls that have ended; what it does must be quick, as a call may be waiting."""

MEASURES = ("tokens", "imbalance", "share", "empty", "overflow")
"""What `Snapshot.value` knows; a policy's conditions are about these (and about memory)."""


@dataclass(frozen=True)
class Snapshot:
    """The load at one moment.  `calls`, `total_tokens` and `histogram` are exact, the rest is estimated from the calls
    that were counted, without bias; where all were, it is exact too.

    calls, total_tokens  since the beginning
    chosen               slots that chose each expert since the beginning, [E]
    dropped              slots that a capacity dropped since the beginning
    uncounted            calls that are missing everywhere here because too many ran at once
    histogram            calls since the beginning, by the power of two at or below their tokens (0: none)
    shares               the experts' shares of recent slots, [E]; zeros before the first
    tokens               mean of recent calls
    imbalance            the largest share over the mean, 1..E; 1 before the first slot
    share                the largest share
    empty                share of the experts that no slot has chosen for four half-lives
    overflow             share of recent slots that were dropped
    """

    calls: int
    total_tokens: int
    chosen: NDArray[np.int64]
    dropped: int
    uncounted: int
    histogram: Mapping[int, int]
    shares: NDArray[np.float64]
    tokens: float
    imbalance: float
    share: float
    empty: float
    overflow: float

    def value(self, measure: str) -> float:
        """One of MEASURES by its name in the language."""
        if measure not in MEASURES:
            raise KeyError(measure)
        return float(getattr(self, measure))


class LoadStatistics:
    """Statistics of one layer.  Reading them folds in all calls that have ended.

    experts   how many are routed
    slots     how many of them a token chooses at most
    capacity  whether the layer can drop slots
    layer     its name
    gates     see `Sampling`: what a call asks first
    """

    def __init__(
        self, experts: int, slots: int, capacity: bool, layer: str = "layer", half_life: int = HALF_LIFE
    ) -> None:
        self.layer = layer
        self.experts = experts
        self.slots = slots
        self.ring = Ring(experts, capacity)
        self.sampling = Sampling()
        self.gates = self.sampling.gates
        self._half_life = half_life
        self._factor = 0.5 ** (1 / half_life)
        self._lock = threading.Lock()
        self._folding = _FIRST_FOLDING  # seconds, for each call
        self._chosen = np.zeros(experts, np.int64)
        self._last = np.full(experts, -1, np.int64)  # the number of the counted call that chose it last
        self._recent = np.zeros(experts)
        self._recent_kept = 0.0
        self._recent_calls = 0.0
        self._recent_tokens = 0.0
        self._calls = self._tokens = self._dropped = self._uncounted = 0
        self._histogram = np.zeros(BIT_LENGTHS, np.int64)
        self._listeners: list[Listener] = []
        in_children(self)

    def forked(self) -> None:
        """In a forked child: locks that other threads may have held are free."""
        self._lock = threading.Lock()
        self.ring.forked()
        self.sampling.forked()

    @classmethod
    def of(cls, manifest: Manifest) -> LoadStatistics:
        """Those of a layer.  Raises AdaptationError where its artifact does not count."""
        counted = {statistic.name: statistic for statistic in manifest.statistics}
        chosen = counted.get("chosen")
        if chosen is None:
            raise AdaptationError(
                f"{manifest.layer} does not count its load: its IR does not say how many experts are routed. "
                "Compile it from its .moe file."
            )
        return cls(chosen.row[0], chosen.slots, "kept" in counted, manifest.layer)

    def take(self, tokens: int) -> Row | None:
        """Memory for what a call counts that no gate has let go; None: it is not counted, because it is short or
        because too many calls run at once."""
        begin = time.perf_counter_ns()
        weight = self.sampling.draw(tokens)
        if not weight:
            return None
        row = self.ring.take()
        if row is None:
            self.fold()
            row = self.ring.take()
            if row is None:
                self._uncounted += 1
                return None
        row.weight = weight
        row.cost = time.perf_counter_ns() - begin
        return row

    def give(self, row: Row, tokens: int, nanoseconds: int, variant: int = 0) -> None:
        """A call has ended that took so long (0: it is not known)."""
        if self.ring.give(row, tokens, nanoseconds, variant):
            self.fold()

    def cancel(self, row: Row) -> None:
        """A call has failed and counts for nothing."""
        self.ring.cancel(row)

    def listen(self, listener: Listener) -> None:
        """`listener` is called with every batch that is folded in, by whichever thread folds."""
        self._listeners.append(listener)

    def ignore(self, listener: Listener) -> None:
        self._listeners.remove(listener)

    def fold(self) -> None:
        """Take in the calls that have ended."""
        with self._lock:
            begin = time.perf_counter()
            batch = self.ring.drain()
            if len(batch):
                self._add(batch)
                for listener in tuple(self._listeners):
                    listener(batch)
                self._learn(batch, time.perf_counter() - begin)

    def snapshot(self) -> Snapshot:
        """The load now, with all calls that have ended."""
        self.fold()
        with self._lock:
            tokens, histogram = self.sampling.uncounted()
            histogram += self._histogram
            total = float(self._recent.sum())
            shares = self._recent / total if total else np.zeros(self.experts)
            return Snapshot(
                calls=int(histogram.sum()),
                total_tokens=self._tokens + tokens,
                chosen=self._chosen.copy(),
                dropped=self._dropped,
                uncounted=self._uncounted,
                histogram={(1 << i >> 1): int(n) for i, n in enumerate(histogram) if n},
                shares=shares,
                tokens=self._recent_tokens / self._recent_calls if self._recent_calls else 0.0,
                imbalance=float(shares.max(initial=0.0)) * self.experts if total else 1.0,
                share=float(shares.max(initial=0.0)),
                empty=self._empty(),
                overflow=1 - self._recent_kept / total if total else 0.0,
            )

    def prometheus(self, labels: Mapping[str, str] | None = None) -> str:
        """The figures as Prometheus scrapes them.  `labels` stand on every line beside the layer's name."""
        from moec.runtime.adapt.prometheus import exposition

        return exposition(self.snapshot(), {"layer": self.layer, **(labels or {})})

    def record(self, path: str | Path) -> Recorder:
        """Write the load to a trace file until `stop`, or until the end of a `with`.

        The compiler takes such a file as `routing = trace("...")` and as `by = "..."` of `coldest(...)`.
        Raises OSError where it cannot be written.
        """
        from moec.runtime.adapt.recorder import Recorder

        return Recorder(self, path)

    def _add(self, batch: Batch) -> None:
        calls = len(batch)
        weights = self._factor ** np.arange(calls - 1, -1, -1) * batch.weights
        before = self._factor**calls
        kept = batch.chosen if batch.kept is None else batch.kept
        self._recent = self._recent * before + weights @ batch.chosen
        self._recent_kept = self._recent_kept * before + float(weights @ kept.sum(1))
        self._recent_calls = self._recent_calls * before + float(weights.sum())
        self._recent_tokens = self._recent_tokens * before + float(weights @ batch.tokens)
        self._chosen += batch.weights @ batch.chosen
        self._dropped += int(batch.weights @ (batch.chosen - kept).sum(1))
        used = batch.chosen[::-1] > 0
        self._calls += calls
        self._last = np.where(used.any(0), self._calls - 1 - used.argmax(0), self._last)
        self._tokens += int(batch.tokens.sum())
        self._histogram += np.bincount(bit_lengths(batch.tokens), minlength=BIT_LENGTHS)

    def _empty(self) -> float:
        """Share of the experts that were last chosen too long ago."""
        since = self._calls - 1 - self._last
        never = self._last < 0
        return float(((since > _GONE * self._half_life) | never).mean()) if self._calls else 0.0

    def _learn(self, batch: Batch, seconds: float) -> None:
        """What counting the calls of a batch has cost, `seconds` of that for folding it in."""
        if len(batch) >= _TELLING:
            each = min(seconds / len(batch), _FAR * self._folding)  # the system may have stopped the thread
            self._folding += _LEARNING * (each - self._folding)
        costs = _TAKING * batch.costs + self._folding
        self.sampling.learn(batch.tokens, batch.seconds, batch.weights, costs)
