"""Memory for two experts in five: the set fixed by the first phase, the set that follows the load, the set told ahead.

Every mode keeps the same limit.  `fixed` keeps the experts that are hottest in the first phase, as one does who places
experts once.  `following` is what `page` of a layout does.  `told` keeps the hottest experts of each phase and changes
them at the very moment; `placed` has them read besides while no clock runs.

The limit is kept by a thread beside the calls.  Calls of a real-time class leave it no processor, and nothing would
ever leave memory; so they run at a raised priority instead, and what memory holds is looked at while they do.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch

from bench.drift.traffic import Phase, Router, Traffic, order
from bench.layer import Layer
from bench.machine import Quiet
from bench.routes.moec_layer import moec_layer
from bench.shapes import SHAPES
from moec.artifact.policy import Page
from moec.runtime.adapt.paging import Paging
from moec.runtime.module import Layer as Compiled

MODES = ("fixed", "following", "told", "placed")
SHARE = 0.4
PHASES = 4
REGIMES = ((1, 0.7), (4, 0.2), (16, 0.1))
_LOOKS = 0.25
"""Seconds between two looks at what is in memory."""
_SETTLED = 1.1
_PATIENCE = 60.0


def drifts(experts: int) -> Mapping[str, tuple[Phase, ...]]:
    """How the hot set moves: nothing but a domain's experts is chosen; or all are, by Zipf's law."""
    shifts = [number * experts // PHASES for number in range(PHASES)]
    hot = round(0.3 * experts)
    return {
        f"{hot} hot": tuple(Phase(1.2, shift, REGIMES, hot) for shift in shifts),
        "zipf(2)": tuple(Phase(2.0, shift, REGIMES) for shift in shifts),
        "zipf(1.2)": tuple(Phase(1.2, shift, REGIMES) for shift in shifts),
    }


class Limited:
    """A layer with memory for a share of its experts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source = Layer(SHAPES["olmoe"])
        self.layer = cast(Compiled, moec_layer(self.source, "bf16"))
        weights = self.source.weights("bf16")
        experts = self.source.shape.experts
        self.expert = sum(weights[name][0].nbytes for name in ("gate_up", "down"))
        self.fit = round(SHARE * experts)
        self.limit = self.layer.packed_bytes - (experts - self.fit) * self.expert
        self.router = Router(weights["router"], self.source.shape.top_k, order(experts))

    def run(self, mode: str, traffic: Traffic, seconds: float, quiet: Quiet) -> list[dict[str, Any]]:
        """Calls of each phase for so long; of each phase the tokens and the time."""
        found = []
        paging: Paging | None = None
        for number, phase in enumerate(traffic.phases):
            hot = self.router.hot(phase, self.fit)
            if paging is None or mode in ("told", "placed"):
                if paging is not None:
                    paging.stop()
                paging = self._paging(None if mode == "following" else hot)
            self._settle()
            if mode == "placed":
                self._read(hot)
            with quiet(), self._watched() as held:
                calls = self._phase(traffic, number, seconds)
            found.append({**calls, "held": held})
        if paging is not None:
            paging.stop()
        return found

    def _paging(self, keep: Sequence[int] | None) -> Paging:
        page = Page("routed", self.limit)
        return Paging(self.layer._store, page, self.layer.statistics, self.folder, keep)

    def _settle(self) -> None:
        """What has just been packed is brought to the disk before it leaves memory, which is no call's time."""
        end = time.monotonic() + _PATIENCE
        while self._held() > _SETTLED * self.limit:
            if time.monotonic() > end:
                raise RuntimeError(f"{self._held():,} bytes stay in memory, and {self.limit:,} may")
            time.sleep(_LOOKS)

    def _held(self) -> int:
        memory = self.layer._store.mapped
        return memory.resident([(0, memory.nbytes)]) if memory is not None else self.layer.packed_bytes

    @contextmanager
    def _watched(self) -> Iterator[list[int]]:
        """Bytes of weights that are in memory, now and then while the body runs."""
        held: list[int] = []
        ending = threading.Event()

        def watch() -> None:
            while not ending.wait(_LOOKS):
                held.append(self._held())

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield held
        finally:
            ending.set()
            watcher.join()

    def _read(self, experts: Sequence[int]) -> None:
        """Bring experts into memory."""
        store = self.layer._store
        for region in store.kernel.library.manifest.variants[store.kernel.index].regions:
            for place, expert in enumerate(region.experts):
                if expert in experts:
                    begin = region.offset + place * region.stride
                    store.buffer[begin : begin + region.stride].view(torch.int64).sum()

    @torch.no_grad()
    def _phase(self, traffic: Traffic, number: int, seconds: float) -> dict[str, Any]:
        requests = traffic.requests(number, seed=number)
        tokens, calls, longest = 0, 0, 0.0
        begin = now = time.perf_counter()
        while now - begin < seconds:
            request = next(requests)
            self.layer(request.x)
            before, now = now, time.perf_counter()
            tokens, calls, longest = tokens + request.tokens, calls + 1, max(longest, now - before)
        return {"tokens": tokens, "calls": calls, "seconds": now - begin, "longest": longest}


def scenario(folder: Path, seconds: float, quiet: Quiet) -> dict[str, Any]:
    """Each traffic in each mode: tokens a second of each phase and of the whole, and of the limit what was held."""
    limited = Limited(folder)
    traffics: dict[str, Any] = {}
    for name, phases in drifts(limited.router.experts).items():
        traffic = Traffic(limited.router, phases, torch.bfloat16)
        traffics[name] = {}
        for mode in MODES:
            found = limited.run(mode, traffic, seconds, quiet)
            held = [nbytes for phase in found for nbytes in phase["held"]]
            traffics[name][mode] = {
                "held": sum(held) / len(held) / limited.limit,
                "tokens_per_second": sum(p["tokens"] for p in found) / sum(p["seconds"] for p in found),
                "phases": found,
            }
    return {"limit": limited.limit, "whole": limited.layer.packed_bytes, "traffics": traffics}
