"""The soak: windows with recompilation and without take turns, on the same traffic, while the compiler is struck.

Forced, the layer recompiles without need: whatever range of tokens calls lie in is proposed, whether it gains or not.
So there is a swap, a rollback or a failure all the time, which is what is to be shown to do no harm.  Nothing is kept
on disk, and each window begins with the layer as it was compiled ahead.

In service it does what it does for users: what the policy proposes is compiled if it saves more than it costs, at its
own pace, and is kept in a cache on disk.  Variants that have won their trial run on in the next window with
recompilation, whose traffic is another.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import moec
from bench.drift.traffic import Router, Traffic, order
from bench.soak.callers import Callers, Window, expected
from bench.soak.chaos import Chaos
from bench.soak.layers import Soaked
from bench.soak.report import Footprint, Happened, Report
from moec.artifact.container import read
from moec.artifact.manifest import Manifest
from moec.artifact.policy import Policy
from moec.artifact.specialisation import Specialisation
from moec.runtime.adapt.adaptation import Adaptation
from moec.runtime.adapt.cache import Cache
from moec.runtime.adapt.candidates import Candidates
from moec.runtime.adapt.contracts import Compiled, Proposal
from moec.runtime.adapt.guards import FIRST_PAUSE
from moec.runtime.adapt.journal import Journal
from moec.runtime.adapt.ring import Batch
from moec.runtime.adapt.statistics import Snapshot
from moec.runtime.adapt.supply import Supply
from moec.runtime.adapt.worker import Worker

PAUSE = 0.2
"""Seconds between two considerations by default where it is forced."""


class Eager:
    """Proposes the range of tokens in which recent calls lie, as if it made them twice as fast."""

    def __init__(self, policy: Policy, manifest: Manifest, code: str) -> None:
        self._candidates = replace(Candidates.of(policy, manifest, code), gain=lambda most: 2.0)

    def propose(self, load: Snapshot, running: Sequence[Specialisation]) -> Sequence[Proposal]:
        proposals = self._candidates.propose(load, running)
        ranges = ((one, one.specialisation.tokens) for one in proposals)
        return [one for one, tokens in ranges if tokens is not None and tokens[0] <= round(load.tokens) <= tokens[1]]


class Warm:
    """A compiler that stays when an adaptation that uses it ends, unless it is at work."""

    def __init__(self, supply: Supply, worker: Worker) -> None:
        self._supply, self._worker = supply, worker
        self._last: Future[Compiled] | None = None

    def has(self, specialisation: Specialisation) -> bool:
        return self._supply.has(specialisation)

    def expect(self, specialisation: Specialisation) -> None:
        self._supply.expect(specialisation)

    def submit(self, specialisation: Specialisation) -> Future[Compiled]:
        self._last = self._supply.submit(specialisation)
        return self._last

    def reject(self, specialisation: Specialisation) -> None:
        self._supply.reject(specialisation)

    def close(self) -> None:
        """The next adaptation goes on with it; what it compiles now would disturb a window without recompilation."""
        pid = self._worker.pid
        if self._last is not None and not self._last.done() and pid is not None:
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.kill(pid, signal.SIGKILL)


class Soak:
    """Two copies of a layer, one of which recompiles, and the traffic for both."""

    def __init__(
        self,
        folder: Path,
        soaked: Soaked,
        callers: int = 4,
        threads: int = 1,
        strike: float = 6.0,
        pause: float = PAUSE,
        seed: int = 0,
        *,
        service: bool = False,
        ahead: bool = False,
        recompiling: bool = True,
    ) -> None:
        """folder: for files; threads: of each call; strike, pause: seconds between two strikes at the compiler, on
        average, and between two considerations; service: not forced, whatever `pause` is; ahead: the artifact holds
        variants already; recompiling: False: in no window, to see by how much they differ anyway"""
        source = folder / "soak.moe"
        source.write_text(soaked.source)
        path = moec.compile(source, folder / "soak.so", variants=ahead)
        self._folder, self._service, self._recompiles = folder, service, recompiling
        self._pause = FIRST_PAUSE if service else pause
        self._adapting, self._still = (moec.load(path).reset_parameters(seed + 1) for _ in range(2))
        policy = self._adapting.manifest.policy
        if policy is None:
            raise ValueError(f"{path} holds no policy")
        self._policy = policy
        router = moec.load(path, keep_weights=True).reset_parameters(seed + 1).get_parameter("router.logits.weight")
        made = Router(router.detach(), soaked.top_k, order(soaked.experts))
        self._traffic = Traffic(made, soaked.drift(), torch.bfloat16, 6)
        wanted = expected(self._still, self._traffic)
        self._callers = Callers(callers, self._traffic, wanted, threads, soaked.largest_error)
        self._worker = worker = Worker(timeout=10.0)  # one that is stopped is to be given up within a window or two
        cache = Cache(folder / "cache") if service else None
        self._supply = Supply(read(path), self._adapting.variant, worker, cache)
        self._chaos = Chaos(worker, strike, seed)
        self.report = Report()

    @property
    def code(self) -> str:
        """The instruction set that is soaked."""
        return self._adapting.variant

    def run(self, pairs: int, seconds: float, lead: float = 0.5) -> Report:
        """So many pairs of windows of so many seconds, one with recompilation and one without."""
        phases = len(self._traffic.phases)
        for pair in range(pairs):
            # Each comes first as often as the other, because the machine may be used by others in a rhythm of its own.
            for state in ("on", "off") if pair // phases % 2 == 0 else ("off", "on"):
                layer = self._adapting if state == "on" else self._still
                window = Window(layer, pair % phases, pair, seconds, lead)
                if state == "on" and self._recompiles:
                    self._recompiling(window, pair)
                else:
                    self._callers.run(window)
                self.report.add(state, window)
        self.report.strikes = self._chaos.strikes
        return self.report

    def close(self) -> None:
        self._chaos.stop()
        self._callers.stop()
        self._supply.close()

    def _recompiling(self, window: Window, pair: int) -> None:
        layer, store = self._adapting, self._adapting._store
        if not self._service:
            store.publish(None, store.generation)
        proposer = (Candidates.of if self._service else Eager)(self._policy, layer.manifest, layer.variant)
        journal = Journal(self._folder / "journal.jsonl")
        compiler = Warm(self._supply, self._worker)
        begin = time.time()
        layer.statistics.listen(self._heard)
        with Adaptation(
            store,
            self._policy,
            layer.statistics,
            proposer,
            compiler,
            journal,
            pause=self._pause,
        ) as handle:
            self._chaos.on.set()
            self._callers.run(window)
            self._chaos.on.clear()
        layer.statistics.ignore(self._heard)
        self.report.happened += [_happened(record, pair, begin) for record in handle.decisions]
        self.report.footprints.append(Footprint.now())

    def _heard(self, batch: Batch) -> None:
        """Which calls variants run."""
        for tokens, weight, variant in zip(batch.tokens, batch.weights, batch.variants, strict=True):
            ran = self.report.ran.setdefault(int(tokens), Counter())
            ran["base" if variant == 0 else "variants"] += int(weight)


def _happened(record: Mapping[str, Any], pair: int, begin: float) -> Happened:
    what = record["what"] if record["event"] == "decision" else record["event"]
    name = record.get("candidate") or record.get("to") or record.get("variant")
    variants = len(record["variants"]) - 1 if record["event"] == "swap" else 0
    return Happened(pair, record["time"] - begin, what, name, record.get("why"), variants)
