"""Threads that call a layer all the time and compare every result with what it must be."""

from __future__ import annotations

import threading
import time
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from bench.drift.traffic import Request, Traffic
from bench.soak.report import Seconds
from moec.runtime.module import Layer

Key = tuple[int, int, int]
"""Phase, tokens and number of a request."""
_MOST_FAULTS = 20


@dataclass
class Window:
    """Some seconds of one phase's traffic on one layer.

    length   in seconds
    lead     seconds at its beginning whose latencies do not count
    seconds  by tokens of the call: of each call
    faults   what was wrong, for people
    calls    how many there were
    """

    layer: Layer
    phase: int
    seed: int
    length: float
    lead: float
    seconds: Seconds = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    calls: int = 0


def error(given: torch.Tensor, wanted: torch.Tensor) -> float:
    """Root of the mean square error over that of what is wanted; NaN where numbers are missing."""
    want = wanted.float()
    return float((given.float() - want).norm() / want.norm())


def expected(layer: Layer, traffic: Traffic) -> Mapping[Key, torch.Tensor]:
    """What a layer gives for every request."""
    with torch.no_grad():
        return {
            (request.phase, request.tokens, request.number): layer(request.x)
            for pool in traffic.pool.values()
            for request in pool
        }


class Callers:
    """`count` threads that stay for all windows, as those of a server do."""

    def __init__(
        self,
        count: int,
        traffic: Traffic,
        wanted: Mapping[Key, torch.Tensor],
        threads: int,
        largest_error: float = 0.0,
    ) -> None:
        """threads: that each call may use; largest_error: of its results, relative; 0: they have the same bits"""
        self._traffic, self._wanted, self._threads = traffic, wanted, threads
        self._largest_error = largest_error
        self._window: Window | None = None
        self._gate = threading.Barrier(count + 1)
        self._lock = threading.Lock()
        self._callers = [threading.Thread(target=self._work, args=(i,), daemon=True) for i in range(count)]
        for caller in self._callers:
            caller.start()

    def run(self, window: Window) -> None:
        """Call for the length of the window."""
        self._window = window
        self._gate.wait()  # they begin
        self._gate.wait()  # all have ended

    def stop(self) -> None:
        self._window = None
        self._gate.wait()
        for caller in self._callers:
            caller.join()

    def _work(self, number: int) -> None:
        torch.set_num_threads(self._threads)
        while True:
            self._gate.wait()
            window = self._window
            if window is None:
                return
            self._call(window, number)
            self._gate.wait()

    @torch.no_grad()
    def _call(self, window: Window, number: int) -> None:
        requests = self._traffic.requests(window.phase, window.seed * len(self._callers) + number)
        seconds: Seconds = {}
        faults: list[str] = []
        calls = 0
        begin = time.monotonic()
        while time.monotonic() - begin < window.length and len(faults) < _MOST_FAULTS:
            request = next(requests)
            counts = time.monotonic() - begin >= window.lead
            started = time.perf_counter()
            try:
                y = window.layer(request.x)
            except Exception as error:  # noqa: BLE001  that none is raised is what is tested
                faults.append(f"{_told(request)}: {type(error).__name__}: {error}")
                continue
            taken = time.perf_counter() - started
            calls += 1
            if counts:
                seconds.setdefault(request.tokens, array("d")).append(taken)
            fault = self._fault(y, self._wanted[request.phase, request.tokens, request.number])
            if fault is not None:
                faults.append(f"{_told(request)}: {fault}")
        with self._lock:
            window.calls += calls
            window.faults += faults
            for tokens, found in seconds.items():
                window.seconds.setdefault(tokens, array("d")).extend(found)

    def _fault(self, y: torch.Tensor, wanted: torch.Tensor) -> str | None:
        """The same work for every call, whatever runs it, so that windows differ in nothing else."""
        if not self._largest_error:
            return None if torch.equal(y, wanted) else "other bits"
        off = error(y, wanted)
        return None if off <= self._largest_error else f"off by {off:.2g}"


def _told(request: Request) -> str:
    return f"phase {request.phase}, {request.tokens} tokens, batch {request.number}"
