"""The soak: windows with recompilation and without take turns, on the same traffic, while the compiler is struck.

Forced, the layer recompiles without need: whatever range of tokens calls lie in is proposed, whether it gains or not.
So there is a swap, a rollback or a failure all the time, which is what is to be shown to do no harm.  In service it
does what it does for users: what the policy proposes is compiled if it saves more than it costs, at its own pace.

Nothing is kept on disk, and each window begins with the layer as it was compiled ahead.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path

import torch

import moec
from bench.drift.traffic import REGIMES, Phase, Router, Traffic, order
from bench.soak.callers import Callers, Window, expected
from bench.soak.chaos import Chaos
from bench.soak.report import Footprint, Report
from moec.artifact.container import read
from moec.artifact.manifest import Manifest
from moec.artifact.policy import Policy
from moec.artifact.specialisation import Specialisation
from moec.runtime.adapt.adaptation import Adaptation
from moec.runtime.adapt.candidates import Candidates
from moec.runtime.adapt.contracts import Compiled, Proposal
from moec.runtime.adapt.guards import FIRST_PAUSE
from moec.runtime.adapt.journal import Journal
from moec.runtime.adapt.statistics import Snapshot
from moec.runtime.adapt.supply import Supply
from moec.runtime.adapt.worker import Worker

SOURCE = """edition 1
layer Soaked(d = {d}, ff = {ff}, E = {experts}, dtype = bf16) {{
  router softmax_top({top_k}) : f32
  experts routed[E] = swiglu(d, ff) : dtype
}}
layout Eager for Soaked {{
  specialise tokens(1..8, 9..16, 17..512, 513..4096)
  recompile when tokens >= 1 for 10 calls, gain 1.0, max {most} variants
}}
"""
PAUSE = 0.2
"""Seconds between two considerations by default where it is forced."""


@dataclass(frozen=True)
class Sizes:
    """Of the layer that is soaked: small enough for wide panels, which need a second packed form of the weights.

    most     variants at a time
    regimes  tokens of a call
    """

    d: int = 512
    ff: int = 256
    experts: int = 32
    top_k: int = 4
    most: int = 2
    regimes: tuple[int, ...] = REGIMES


class Eager:
    """Proposes the ranges of tokens of a policy as if each made calls twice as fast."""

    def __init__(self, policy: Policy, manifest: Manifest) -> None:
        self._candidates = replace(Candidates.of(policy, manifest), gain=lambda most: 2.0)

    def propose(self, load: Snapshot, running: Sequence[Specialisation]) -> Sequence[Proposal]:
        return self._candidates.propose(load, running)


class Warm:
    """A compiler that stays when an adaptation that uses it ends, unless it is at work."""

    def __init__(self, supply: Supply, worker: Worker) -> None:
        self._supply, self._worker = supply, worker
        self._last: Future[Compiled] | None = None

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
        sizes: Sizes,
        callers: int = 4,
        threads: int = 1,
        strike: float = 6.0,
        pause: float = PAUSE,
        seed: int = 0,
        *,
        service: bool = False,
        recompiling: bool = True,
    ) -> None:
        """folder: for files; threads: of each call; strike, pause: seconds between two strikes at the compiler, on
        average, and between two considerations; service: not forced, whatever `pause` is; recompiling: False: in no
        window, to see by how much they differ anyway"""
        source = folder / "soak.moe"
        source.write_text(SOURCE.format(**vars(sizes)))
        path = moec.compile(source, folder / "soak.so")
        self._folder, self._service, self._recompiles = folder, service, recompiling
        self._pause = FIRST_PAUSE if service else pause
        self._adapting, self._still = (moec.load(path).reset_parameters(seed + 1) for _ in range(2))
        policy = self._adapting.manifest.policy
        if policy is None:
            raise ValueError(f"{path} holds no policy")
        self._policy = policy
        router = moec.load(path, keep_weights=True).reset_parameters(seed + 1).get_parameter("router.logits.weight")
        often = [tokens**-0.75 for tokens in sizes.regimes]  # large calls are rarer, but take more of the time
        regimes = tuple(zip(sizes.regimes, often, strict=True))
        half = len(regimes) // 2
        phases = [
            Phase(0.0, 0, regimes),
            Phase(1.2, 0, regimes),
            Phase(0.8, sizes.experts // 2, regimes[:half]),
            Phase(1.6, sizes.experts // 3, regimes[half:]),
        ]
        self._traffic = Traffic(Router(router.detach(), sizes.top_k, order(sizes.experts)), phases, torch.bfloat16, 6)
        self._callers = Callers(callers, self._traffic, expected(self._still, self._traffic), threads)
        self._worker = worker = Worker(timeout=10.0)  # one that is stopped is to be given up within a window or two
        self._supply = Supply(read(path), self._adapting.variant, worker, None)
        self._chaos = Chaos(worker, strike, seed)
        self.report = Report()

    def run(self, pairs: int, seconds: float, lead: float = 0.5) -> Report:
        """So many pairs of windows of so many seconds, one with recompilation and one without."""
        phases = len(self._traffic.phases)
        for pair in range(pairs):
            # Each comes first as often as the other, because the machine may be used by others in a rhythm of its own.
            for state in ("on", "off") if pair // phases % 2 == 0 else ("off", "on"):
                layer = self._adapting if state == "on" else self._still
                window = Window(layer, pair % phases, pair, seconds, lead)
                if state == "on" and self._recompiles:
                    self._recompiling(window)
                else:
                    self._callers.run(window)
                self.report.faults += [f"{state}: {fault}" for fault in window.faults]
                self.report.calls[state] += window.calls
                self.report.add(state, pair // phases % 2, window.seconds)
        self.report.strikes = self._chaos.strikes
        return self.report

    def close(self) -> None:
        self._chaos.stop()
        self._callers.stop()
        self._supply.close()

    def _recompiling(self, window: Window) -> None:
        layer, store = self._adapting, self._adapting._store
        store.publish(None, store.generation)
        proposer = (Candidates.of if self._service else Eager)(self._policy, layer.manifest)
        journal = Journal(self._folder / "journal.jsonl")
        compiler = Warm(self._supply, self._worker)
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
        for record in handle.decisions:
            kind = record["event"]
            self.report.events[record["what"] if kind == "decision" else kind] += 1
            if kind == "swap":
                self.report.variants = max(self.report.variants, len(record["variants"]) - 1)
        self.report.footprints.append(Footprint.now())
