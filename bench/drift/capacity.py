"""A capacity layer over phases of more and less skew: padded to a capacity, and not.

What a static capacity costs depends on how it is computed. The baseline of DynaMoE multiplies [E, C, d] by [E, d, ff]:
every expert takes C rows, whatever it has.  moec multiplies the rows that there are, so its capacity decides what is
dropped and nothing else.  Padded layers multiply in the type in which torch is fastest on the machine.  The modes:

    padded_worst    one capacity for which no phase drops anything, padded
    padded_small    the file's capacity (1.25 times the even share), padded; drops
    padded_refit    padded to the smallest capacity that drops nothing in the phase: DynaMoE's recompiling, with an
                    oracle's knowledge and without its cost
    moec_worst      moec with a capacity for which no phase drops anything: also its oracle
    moec_small      moec with the file's capacity; drops
    moec_adapting   moec under `approx capacity(...)`, following the load by itself
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

import moec
from bench.drift.traffic import Phase, Request, Router, Traffic, order
from bench.machine import Quiet
from bench.shapes import REPOSITORY
from moec.runtime.adapt.statistics import Snapshot
from moec.runtime.module import Layer as Compiled

D, FF, EXPERTS, TOKENS = 768, 3072, 8, 2048
EXPONENTS = (0.0, 0.4, 0.8, 1.2)
FACTOR = 1.25
LARGEST_ERROR = 0.02
LAYOUT = f"""
layout Refit for SwitchBase {{
  approx capacity({FACTOR}..{EXPERTS}.0)
  recompile when overflow > 0.01 for 5 calls, gain 1.0, max 1 variants
  recompile when overflow < 0.001 and imbalance < 1.3 for 1000 calls, gain 1.1
}}
"""

Run = Callable[[torch.Tensor], torch.Tensor]


class Weights:
    """Switch-Base's: router f32 [E, d], up [E, ff, d] and down [E, d, ff] in bf16."""

    def __init__(self, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.router = torch.randn(EXPERTS, D, generator=generator) / D**0.5
        self.up = (torch.randn(EXPERTS, FF, D, generator=generator) / D**0.5).bfloat16()
        self.down = (torch.randn(EXPERTS, D, FF, generator=generator) / FF**0.5).bfloat16()

    def load(self, path: Path) -> Compiled:
        layer = moec.load(path)
        state = {"router.logits.weight": self.router, "routed.up.weight": self.up, "routed.down.weight": self.down}
        layer.load_state_dict(state)
        return layer


class Padded:
    """A layer whose experts take `capacity` rows each, empty ones too: batched products of [E, C, d], in `dtype`."""

    def __init__(self, weights: Weights, capacity: int, dtype: torch.dtype = torch.bfloat16) -> None:
        self.router, self.capacity = weights.router, capacity
        self.up, self.down = (one.to(dtype).mT.contiguous() for one in (weights.up, weights.down))

    @torch.no_grad()
    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[T, d] to [T, d] bf16; tokens beyond an expert's capacity give zeros."""
        p, expert = F.linear(x.float(), self.router).softmax(-1).max(-1)
        taken = F.one_hot(expert, EXPERTS)
        place = (taken.cumsum(0) * taken).sum(-1) - 1
        kept = place < self.capacity
        slot = (expert * self.capacity + place)[kept]
        rows = self.up.new_zeros(EXPERTS * self.capacity, D)
        rows[slot] = x[kept].to(rows.dtype)
        hidden = torch.bmm(rows.view(EXPERTS, self.capacity, D), self.up).relu_()
        results = torch.bmm(hidden, self.down).view(-1, D)
        y = torch.zeros_like(x)
        y[kept] = (results[slot] * p[kept, None].to(results.dtype)).to(y.dtype)
        return y


def fastest_products() -> torch.dtype:
    """In which type torch multiplies fastest here: where no instruction multiplies bf16, f32 by a hundred times."""
    taken = {}
    for dtype in (torch.float32, torch.bfloat16):
        rows, weights = torch.ones(EXPERTS, 16, D, dtype=dtype), torch.ones(EXPERTS, D, D, dtype=dtype)
        torch.bmm(rows, weights)
        begin = time.perf_counter()
        torch.bmm(rows, weights)
        taken[dtype] = time.perf_counter() - begin
    return min(taken, key=lambda dtype: taken[dtype])


def counts(traffic: Traffic, phase: int) -> torch.Tensor:
    """How many rows each expert has in each batch of a phase, [batches, E]."""
    batches = traffic.pool[phase, TOKENS]
    return torch.stack([torch.bincount(traffic.router.picks(r.x)[:, 0], minlength=EXPERTS) for r in batches])


def compiled(folder: Path, name: str, factor: float, layout: str = "") -> Path:
    """Switch-Base with another capacity factor."""
    text = (REPOSITORY / "examples/switch_base.moe").read_text()
    path = folder / f"{name}.moe"
    path.write_text(text.replace("capacity(1.25,", f"capacity({factor},") + layout)
    return Path(moec.compile(path, folder / f"{name}.so"))


@torch.no_grad()
def timed(run: Run, requests: Iterator[Request]) -> float:
    """Seconds of one call."""
    x = next(requests).x
    begin = time.perf_counter()
    run(x)
    return time.perf_counter() - begin


def scenario(folder: Path, seconds: float, quiet: Quiet) -> dict[str, Any]:
    """Kept tokens a second of each mode, in each phase and over all of them with as many calls each."""
    weights = Weights()
    router = Router(weights.router, 1, order(EXPERTS))
    phases = [Phase(exponent, shift, ((TOKENS, 1.0),)) for shift, exponent in enumerate(EXPONENTS)]
    traffic = Traffic(router, phases, torch.bfloat16, batches=4)
    rows = [counts(traffic, number) for number in range(len(phases))]
    needed = [int(found.max()) for found in rows]
    small = int(FACTOR * TOKENS / EXPERTS)
    kept = [float(found.clamp(max=small).sum() / found.sum()) for found in rows]
    all_kept = [1.0] * len(phases)
    wide = weights.load(compiled(folder, "wide", float(EXPERTS)))
    narrow = weights.load(compiled(folder, "narrow", FACTOR))
    dtype = fastest_products()
    modes: Mapping[str, tuple[Sequence[Run], Sequence[float]]] = {
        "padded_worst": ([Padded(weights, max(needed), dtype)] * len(phases), all_kept),
        "padded_small": ([Padded(weights, small, dtype)] * len(phases), kept),
        "padded_refit": ([Padded(weights, capacity, dtype) for capacity in needed], all_kept),
        "moec_worst": ([wide] * len(phases), all_kept),
        "moec_small": ([narrow] * len(phases), kept),
    }
    for number in range(len(phases)):
        check(modes, traffic.pool[number, TOKENS][0].x, number)
    times: dict[str, list[float]] = {name: [] for name in modes}
    for number in range(len(phases)):
        requests = traffic.requests(number, seed=number)
        taken: dict[str, list[float]] = {name: [] for name in modes}
        with quiet():
            end = time.perf_counter() + seconds
            while time.perf_counter() < end:
                for name, (runs, _) in modes.items():
                    taken[name].append(timed(runs[number], requests))
        for name, found in taken.items():
            times[name].append(statistics.median(found))
    adapting = weights.load(compiled(folder, "adapting", FACTOR, LAYOUT))
    return {
        "needed": needed,
        "small": small,
        "padded_in": str(dtype),
        "modes": {
            name: {
                "milliseconds": [1e3 * one for one in times[name]],
                "kept": list(shares),
                "kept_per_second": TOKENS * sum(shares) / sum(times[name]),
            }
            for name, (_, shares) in modes.items()
        },
        "adapting": follow(adapting, wide, traffic, folder, 2 * seconds),
    }


def check(modes: Mapping[str, tuple[Sequence[Run], Sequence[float]]], x: torch.Tensor, number: int) -> None:
    """Every mode computes the same, apart from what it drops.  Raises ValueError otherwise."""
    results = {name: runs[number](x).double() for name, (runs, _) in modes.items()}
    for one, other in (("padded_worst", "moec_worst"), ("padded_refit", "moec_worst"), ("padded_small", "moec_small")):
        error = float((results[one] - results[other]).norm() / results[other].norm())
        if error > LARGEST_ERROR:
            raise ValueError(f"{one} and {other} differ by {error:.2g}")


def follow(adapting: Compiled, wide: Compiled, traffic: Traffic, folder: Path, seconds: float) -> dict[str, Any]:
    """A layer that refits its capacity, in turns with one that drops nothing, at ordinary priority.

    For each phase the share of tokens that was kept, the same in its last third, and how many times as fast it was.
    """
    out: dict[str, list[float]] = {"kept": [], "kept_later": [], "times_as_fast": []}
    with adapting.adapt(cache=folder / "cache", journal=folder / "journal.jsonl") as handle:
        for number in range(len(traffic.phases)):
            requests = traffic.requests(number, seed=number)
            times: list[tuple[float, float]] = []
            first = third = handle.statistics.snapshot()
            begin = time.perf_counter()
            while (now := time.perf_counter() - begin) < seconds:
                times.append((timed(adapting, requests), timed(wide, requests)))
                if now < seconds * 2 / 3:
                    third = handle.statistics.snapshot()
            last = handle.statistics.snapshot()
            out["kept"].append(kept_between(first, last))
            out["kept_later"].append(kept_between(third, last))
            own, others = zip(*times, strict=True)
            out["times_as_fast"].append(statistics.median(others) / statistics.median(own))
        return {**out, "decisions": [dict(decision) for decision in handle.decisions]}


def kept_between(before: Snapshot, after: Snapshot) -> float:
    """The share of the slots between two moments that no capacity dropped."""
    chosen = int((after.chosen - before.chosen).sum())
    return 1 - (after.dropped - before.dropped) / chosen if chosen else 1.0
