"""Measures routes against each other: in rounds, in changing order, with the machine's limits probed in each round."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from bench import machine
from bench.cell import Cell, Timing
from bench.formats import FORMATS
from bench.layer import TORCH_DTYPE, Layer, relative_error
from bench.limits import Limits, Prober
from bench.limits.probe import typical
from bench.routes import ROUTES, Run, Unavailable

HOPELESS = (4.0, 2.0)
"""A peer that many times slower than the fastest route after its first, second turn is not asked again."""
MAX_CALLS = 40


@dataclass(frozen=True)
class Plan:
    """How long to measure, and how. `turn_seconds`: about how long one route is called in one round."""

    rounds: int = 7
    turn_seconds: float = 0.15
    priority: str = "normal"
    lock: Path | None = None
    """Of these two: bench.machine.quiet."""


QUICK = Plan(rounds=3, turn_seconds=0.06)


def batches_for(tokens: int) -> int:
    """How many different batches are cycled through: enough that small ones find their weights in no cache."""
    return 16 if tokens <= 16 else 4 if tokens <= 128 else 2


class _Load:
    """Processor time used by others, from /proc/stat."""

    def __init__(self) -> None:
        self.begun = self._sample()

    def rest(self, seconds: float) -> None:
        """Leaves the machine to others for a while, which does not count."""
        before = self._sample()
        time.sleep(seconds)
        rested = (now - then for now, then in zip(self._sample(), before, strict=True))
        wall, busy, own = (begun + part for begun, part in zip(self.begun, rested, strict=True))
        self.begun = wall, busy, own

    @staticmethod
    def _sample() -> tuple[float, float, float]:
        stat = Path("/proc/stat")
        busy = 0.0
        if stat.exists():
            ticks = [int(value) for value in stat.read_text().split("\n", 1)[0].split()[1:9]]
            busy = (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")
        return time.perf_counter(), busy, sum(os.times()[:2])

    def others(self) -> float:
        now = self._sample()
        wall, busy, own = (after - before for before, after in zip(self.begun, now, strict=True))
        return max(0.0, busy - own) / wall


def _turn(run: Run, inputs: Sequence[torch.Tensor], first: int, seconds: float) -> float:
    """Median seconds of a call, over about `seconds`; one untimed call brings code and buffers back."""
    if seconds:
        run(inputs[first % len(inputs)])
    calls: list[float] = []
    end = time.perf_counter() + seconds
    while not calls or (time.perf_counter() < end and len(calls) < MAX_CALLS):
        x = inputs[(first + 1 + len(calls)) % len(inputs)]
        begun = time.perf_counter()
        run(x)
        calls.append(time.perf_counter() - begun)
    return statistics.median(calls)


def _hopeless(name: str, timings: Mapping[str, Timing]) -> bool:
    """Whether a peer has shown that it is not the fastest."""
    turns = timings[name].turns
    if not turns or (name in ROUTES and ROUTES[name].role != "peer"):
        return False
    fastest = min(min(timing.turns) for timing in timings.values() if timing.turns)
    return min(turns) > HOPELESS[min(len(turns), len(HOPELESS)) - 1] * fastest


def time_rounds(
    timings: Mapping[str, Timing], routes: Mapping[str, Run], inputs: Sequence[torch.Tensor], prober: Prober, plan: Plan
) -> tuple[Limits, float]:
    """Fill the turns of `timings`; the limits of the same rounds, and the cores that others used meanwhile."""
    probes = []
    with machine.quiet(plan.priority, plan.lock):
        load = _Load()
        for number in range(plan.rounds):
            probes.append(prober.brief())
            order = list(timings)
            first = number % max(1, len(order))
            for name in order[first:] + order[:first]:
                timing = timings[name]
                if _hopeless(name, timings):
                    continue
                # A call longer than the turn is timed once, without the call that warms up.
                long = (timing.turns[-1] if timing.turns else timing.checked_seconds) > plan.turn_seconds
                if plan.priority == "realtime":
                    load.rest(machine.REALTIME_REST)
                timing.turns.append(_turn(routes[name], inputs, number * 7, 0.0 if long else plan.turn_seconds))
        probes.append(prober.brief())
        return typical(probes), load.others()


@torch.no_grad()
def measure_cell(
    layer: Layer, format: str, routing: str, tokens: int, routes: Mapping[str, Run], prober: Prober, plan: Plan
) -> Cell:
    """Check every route against float64, then time all of them in rounds."""
    exact = layer.inputs(tokens, batches_for(tokens), routing)
    reference = layer.reference(exact[0])
    inputs = [x.to(TORCH_DTYPE[FORMATS[format].x]) for x in exact]
    timings, skipped = {}, {}
    for name, run in routes.items():
        try:
            begun = time.perf_counter()
            y = run(inputs[0])
            seconds = time.perf_counter() - begun
            timings[name] = Timing(relative_error(y, reference), checked_seconds=seconds)
        except Unavailable as why:
            skipped[name] = str(why)
    limits, others = time_rounds(timings, routes, inputs, prober, plan)
    return Cell(
        shape=layer.shape.name,
        format=format,
        mode="inference",
        routing=routing,
        tokens=tokens,
        threads=prober.threads,
        flop=layer.flop(tokens),
        touched_bytes=layer.touched_bytes(exact, FORMATS[format]),
        limits=limits,
        timings=timings,
        skipped=skipped,
        other_cores=others,
    )
