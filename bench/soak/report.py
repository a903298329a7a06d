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

import numpy as np

QUANTILES = (0.5, 0.99, 0.999)
Seconds = dict[int, "array[float]"]
"""Of calls, by their tokens; eight bytes each, so that what the layer holds stands out of what is noted."""


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

    events      the adaptations' records by kind, decisions by what was decided
    strikes     at the compiler, by signal
    seconds     of each call, by whether the layer recompiled and by whether its round of phases was an even one
    calls       how many there were
    footprints  behind each window with recompilation
    variants    the most that ran at a time beside the one that was compiled ahead
    """

    faults: list[str] = field(default_factory=list)
    events: Counter[str] = field(default_factory=Counter)
    strikes: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, tuple[Seconds, Seconds]] = field(default_factory=lambda: {"on": ({}, {}), "off": ({}, {})})
    calls: Counter[str] = field(default_factory=Counter)
    footprints: list[Footprint] = field(default_factory=list)
    variants: int = 0

    def add(self, state: str, odd: int, seconds: Seconds) -> None:
        """The seconds of a window's calls."""
        for tokens, found in seconds.items():
            self.seconds[state][odd].setdefault(tokens, array("d")).extend(found)

    def counts(self, state: str) -> Mapping[int, int]:
        """Calls whose time was taken, by their tokens."""
        even, odd = self.seconds[state]
        return {tokens: len(even.get(tokens, ())) + len(odd.get(tokens, ())) for tokens in sorted(even | odd)}

    def latencies(self, state: str) -> Mapping[int, Sequence[float]]:
        """Milliseconds at QUANTILES, by tokens of the call."""
        even, odd = self.seconds[state]
        none = array("d")
        return {tokens: _milliseconds(even.get(tokens, none) + odd.get(tokens, none)) for tokens in sorted(even | odd)}

    def noise(self) -> Mapping[int, Sequence[float]]:
        """The larger of two latencies without recompilation over the smaller, at QUANTILES, by tokens of the call:
        those of even and of odd rounds of phases, which differ by nothing."""
        even, odd = self.seconds["off"]
        return {
            tokens: [
                max(a, b) / min(a, b)
                for a, b in zip(_milliseconds(even[tokens]), _milliseconds(odd[tokens]), strict=True)
            ]
            for tokens in sorted(even.keys() & odd.keys())
        }

    def ratios(self) -> Mapping[int, Sequence[float]]:
        """Latency with recompilation over that without, at QUANTILES, by tokens of the call."""
        on, off = self.latencies("on"), self.latencies("off")
        return {t: [a / b for a, b in zip(on[t], off[t], strict=True)] for t in on if t in off}

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


def _milliseconds(seconds: Sequence[float]) -> list[float]:
    """At QUANTILES."""
    return [1e3 * float(q) for q in np.quantile(seconds, QUANTILES)]
