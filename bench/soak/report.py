"""What a soak finds: faults, what the adaptations did, latencies, and what the process holds."""

from __future__ import annotations

import ctypes
import gc
import os
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

QUANTILES = (0.5, 0.99, 0.999)
_BEYOND = 5
"""Calls of a window that must lie beyond a quantile for it to be compared with another window's."""
Seconds = dict[int, "array[float]"]
"""Of calls, by their tokens; eight bytes each, so that what the layer holds stands out of what is noted."""


class Finished(Protocol):
    """A window that is over: its calls, those that counted by tokens, and what was wrong."""

    calls: int
    seconds: Seconds
    faults: list[str]


@dataclass(frozen=True)
class Paired:
    """Ratios of windows with recompilation to those without, each pair with the same traffic: `mean` is geometric,
    `error` its standard error, `pairs` how many there were."""

    mean: float
    error: float
    pairs: int


@dataclass(frozen=True)
class Happened:
    """One of an adaptation's records.

    pair, seconds  of windows, and after its begin
    what, why      happened to the variant `name`
    variants       that ran then beside the layer itself, where that changed
    """

    pair: int
    seconds: float
    what: str
    name: str | None
    why: str | None
    variants: int


@dataclass(frozen=True)
class Footprint:
    """What the process holds: resident bytes, executable mappings, threads, open files."""

    resident: int
    libraries: int
    threads: int
    files: int

    @classmethod
    def now(cls) -> Footprint:
        """What is free in the allocator's heaps is given back before, so that what is held stands out of it."""
        gc.collect()
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
        if trim is not None:
            trim(0)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        mappings = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
        return cls(
            pages * os.sysconf("SC_PAGE_SIZE"),
            sum("x" in mapping[1] for mapping in mappings),
            len(os.listdir("/proc/self/task")),
            len(os.listdir("/proc/self/fd")),
        )


@dataclass
class Report:
    """What happened.

    happened    what the adaptations recorded, oldest first
    strikes     at the compiler, by signal
    windows     by whether the layer recompiled, of each window the seconds of its calls
    calls       how many each of them had
    ran         by tokens, how many calls with recompilation the layer itself ("base") and its variants ran; estimated
                from those that are counted
    footprints  behind each window with recompilation
    """

    faults: list[str] = field(default_factory=list)
    happened: list[Happened] = field(default_factory=list)
    strikes: Counter[str] = field(default_factory=Counter)
    windows: dict[str, list[Seconds]] = field(default_factory=lambda: {"on": [], "off": []})
    calls: dict[str, list[int]] = field(default_factory=lambda: {"on": [], "off": []})
    ran: dict[int, Counter[str]] = field(default_factory=dict)
    footprints: list[Footprint] = field(default_factory=list)

    def add(self, state: str, window: Finished) -> None:
        """A window is over."""
        self.windows[state].append(window.seconds)
        self.calls[state].append(window.calls)
        self.faults += [f"{state}: {fault}" for fault in window.faults]

    @property
    def events(self) -> Counter[str]:
        """How often what happened; "stayed" are variants that won their trial."""
        return Counter("stayed" if one.what == "keep" and one.name is not None else one.what for one in self.happened)

    @property
    def variants(self) -> int:
        """The most that ran at a time beside the layer that was compiled ahead."""
        return max((one.variants for one in self.happened), default=0)

    def counts(self, state: str) -> Mapping[int, int]:
        """Calls whose time was taken, by their tokens."""
        return {tokens: len(found) for tokens, found in self._pooled(state).items()}

    def latencies(self, state: str) -> Mapping[int, Sequence[float]]:
        """Milliseconds at QUANTILES, by tokens of the call."""
        return {tokens: (1e3 * np.quantile(found, QUANTILES)).tolist() for tokens, found in self._pooled(state).items()}

    def ratios(self) -> Mapping[int, Sequence[float]]:
        """Latency with recompilation over that without, at QUANTILES, by tokens of the call."""
        on, off = self.latencies("on"), self.latencies("off")
        return {t: [a / b for a, b in zip(on[t], off[t], strict=True)] for t in on if t in off}

    def paired(self) -> Mapping[int, Sequence[Paired | None]]:
        """The same of the two windows of each pair, and how much that varies; None where no pair has enough calls."""
        found: dict[int, list[Paired | None]] = {}
        for tokens in self.ratios():
            both = [
                (np.asarray(on[tokens]), np.asarray(off[tokens]))
                for on, off in zip(self.windows["on"], self.windows["off"], strict=True)
                if tokens in on and tokens in off
            ]
            found[tokens] = [_paired(both, quantile) for quantile in QUANTILES]
        return found

    def paired_calls(self) -> Paired:
        """How many calls a window with recompilation has, over that without."""
        return _summary(np.log(self.calls["on"]) - np.log(self.calls["off"]))

    def growth(self) -> Footprint:
        """By how much the process holds more at most in the last third of the windows than in the third before it."""
        third = len(self.footprints) // 3
        before, after = self.footprints[third : 2 * third], self.footprints[-third:]
        return Footprint(
            *(
                max(getattr(one, name) for one in after) - max(getattr(one, name) for one in before)
                for name in ("resident", "libraries", "threads", "files")
            )
        )

    def _pooled(self, state: str) -> dict[int, NDArray[np.float64]]:
        windows = self.windows[state]
        every = sorted({tokens for seconds in windows for tokens in seconds})
        return {t: np.concatenate([np.asarray(seconds[t]) for seconds in windows if t in seconds]) for t in every}


def _paired(both: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]], quantile: float) -> Paired | None:
    enough = [pair for pair in both if min(map(len, pair)) * (1 - quantile) >= _BEYOND]
    logs = [float(np.log(np.quantile(on, quantile) / np.quantile(off, quantile))) for on, off in enough]
    return _summary(np.array(logs)) if logs else None


def _summary(logs: NDArray[np.float64]) -> Paired:
    error = float(logs.std(ddof=1) / len(logs) ** 0.5) if len(logs) > 1 else float("nan")
    return Paired(float(np.exp(logs.mean())), error, len(logs))
