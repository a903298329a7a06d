"""Memory for two experts in five: the set fixed by the first phase, the set that follows the load, the set told ahead.

Every mode has a layer of its own, and keeps the same limit.  `fixed` keeps the experts that are hottest in the first
phase, as one does who places experts once.  `following` is what `page` of a layout does.  `told` keeps the hottest
experts of each phase and changes them at the very moment; `placed` has them read besides while no clock runs.

The modes take turns of a second, as disks of shared hosts are three times as fast in one minute as in the next.  The
limit is kept by a thread beside the calls.  Calls of a real-time class leave it no processor, and nothing would ever
leave memory: so they run at a raised priority at most, and what memory holds is looked at while they do.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import moec
from bench.drift.traffic import Phase, Request, Router, Traffic, order
from bench.layer import Layer
from bench.machine import Quiet
from bench.routes.moec_layer import state_dict
from bench.shapes import REPOSITORY, SHAPES
from moec.artifact.policy import Page
from moec.runtime.adapt.paging import Paging

MODES = ("fixed", "following", "told", "placed")
SHARE = 0.4
PHASES = 4
REGIMES = ((1, 0.7), (4, 0.2), (16, 0.1))
_TURN = 1.0
"""Seconds of calls before the next mode has its turn."""
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
    """OLMoE with memory for `fit` of its experts, in one of the modes.

    found  of each phase: tokens, calls, seconds, the longest call's seconds, and bytes in memory now and then
    """

    def __init__(self, mode: str, source: Layer, artifact: Path) -> None:
        """artifact: one whose layout says `page`; the file lies beside it"""
        self.mode = mode
        self.found: list[dict[str, Any]] = []
        self._folder = artifact.parent
        self._layer = moec.load(artifact)
        self._layer.load_state_dict(state_dict(source, "bf16"))
        weights = source.weights("bf16")
        experts = source.shape.experts
        expert = sum(weights[name][0].nbytes for name in ("gate_up", "down"))
        self.fit = round(SHARE * experts)
        self.whole = self._layer.packed_bytes
        self.limit = self.whole - (experts - self.fit) * expert
        self._paging: Paging | None = None

    def begin(self, hot: Sequence[int]) -> None:
        """A phase with these experts hottest begins: what the mode does about it."""
        self.found.append({"tokens": 0, "calls": 0, "seconds": 0.0, "longest": 0.0, "held": []})
        if self._paging is None or self.mode in ("told", "placed"):
            self.stop()
            page = Page("routed", self.limit)
            keep = None if self.mode == "following" else hot
            self._paging = Paging(self._layer._store, page, self._layer.statistics, self._folder, keep)
        self._settle()
        if self.mode == "placed":
            self._read(hot)

    def stop(self) -> None:
        if self._paging is not None:
            self._paging.stop()

    @torch.no_grad()
    def turn(self, requests: Iterator[Request], seconds: float) -> None:
        """Calls for so long."""
        found = self.found[-1]
        with self._watched(found["held"]):
            begin = now = time.perf_counter()
            while now - begin < seconds:
                request = next(requests)
                self._layer(request.x)
                before, now = now, time.perf_counter()
                found["tokens"] += request.tokens
                found["calls"] += 1
                found["longest"] = max(found["longest"], now - before)
            found["seconds"] += now - begin

    def _settle(self) -> None:
        """What has just been packed is brought to the disk before it leaves memory, which is no call's time."""
        end = time.monotonic() + _PATIENCE
        while self._held() > _SETTLED * self.limit:
            if time.monotonic() > end:
                raise RuntimeError(f"{self._held():,} bytes stay in memory, and {self.limit:,} may")
            time.sleep(_LOOKS)

    def _held(self) -> int:
        memory = self._layer._store.mapped
        return memory.resident([(0, memory.nbytes)]) if memory is not None else self.whole

    @contextmanager
    def _watched(self, held: list[int]) -> Iterator[None]:
        """Append the bytes that are in memory, now and then while the body runs."""
        ending = threading.Event()

        def watch() -> None:
            while not ending.wait(_LOOKS):
                held.append(self._held())

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield
        finally:
            ending.set()
            watcher.join()

    def _read(self, experts: Sequence[int]) -> None:
        """Bring experts into memory."""
        store = self._layer._store
        for region in store.kernel.library.manifest.variants[store.kernel.index].regions:
            for place, expert in enumerate(region.experts):
                if expert in experts:
                    begin = region.offset + place * region.stride
                    store.buffer[begin : begin + region.stride].view(torch.int64).sum()


def scenario(folder: Path, seconds: float, quiet: Quiet) -> dict[str, Any]:
    """Each traffic in each mode: tokens a second of each phase and of the whole, and of the limit what was held."""
    source = Layer(SHAPES["olmoe"])
    router = Router(source.weights("bf16")["router"], source.shape.top_k, order(source.shape.experts))
    artifact = Path(moec.compile(REPOSITORY / "examples/olmoe_paged.moe", folder / "paged.so"))
    traffics: dict[str, Any] = {}
    for name, phases in drifts(router.experts).items():
        traffic = Traffic(router, phases, torch.bfloat16)
        layers = [Limited(mode, source, artifact) for mode in MODES]
        for number in range(len(phases)):
            phase(layers, traffic, number, seconds, quiet)
        traffics[name] = {layer.mode: rates(layer) for layer in layers}
        for layer in layers:
            layer.stop()
    return {"limit": layers[0].limit, "whole": layers[0].whole, "traffics": traffics}


def phase(layers: Sequence[Limited], traffic: Traffic, number: int, seconds: float, quiet: Quiet) -> None:
    """The same requests to every mode, for so long in each, in turns whose order moves on."""
    requests = {layer.mode: traffic.requests(number, seed=number) for layer in layers}
    for layer in layers:
        layer.begin(traffic.router.hot(traffic.phases[number], layer.fit))
    with quiet():
        for turn in range(max(1, round(seconds / _TURN))):
            first = turn % len(layers)
            for layer in (*layers[first:], *layers[:first]):
                layer.turn(requests[layer.mode], min(seconds, _TURN))


def rates(layer: Limited) -> dict[str, Any]:
    held = [nbytes for found in layer.found for nbytes in found["held"]]
    return {
        "tokens_per_second": sum(f["tokens"] for f in layer.found) / sum(f["seconds"] for f in layer.found),
        "held": sum(held) / max(len(held), 1) / layer.limit,
        "phases": layer.found,
    }
