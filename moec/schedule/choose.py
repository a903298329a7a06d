"""Chooses a schedule: tries what a layout allows, predicts each, keeps the fastest, and says why not the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from moec.schedule.build import BLOCKING, LOCAL_AT, Options, both
from moec.schedule.demand import Demand, Load
from moec.schedule.machine import Layer, Machine
from moec.schedule.mesh import Mesh
from moec.schedule.predict import Prediction, predict
from moec.schedule.steps import COMPUTE, Schedules, Wiring

CHUNKS = (1, 2, 3, 4, 6, 8)
"""Numbers of chunks that are tried where the layout does not say one."""
NEGLIGIBLE = 0.01
"""A part of the time for which nothing more intricate is worth it: predictions are no better than that."""


@dataclass(frozen=True)
class Allowed:
    """What a layout allows.

    overlap      of "dispatch" and "combine"
    with_shared  shared experts may be computed beside an exchange
    chunks       how many there must be; None: the chooser's
    training     also backward; both directions count then
    numbered     is it known which experts are chosen most?  Only then their order can matter
    low_dimension  why rows of fewer elements do not travel instead (BigMac, arXiv:2502.16927), or that they do
    """

    overlap: tuple[str, ...] = ()
    with_shared: bool = False
    chunks: int | None = None
    training: bool = False
    numbered: bool = False
    low_dimension: str = "every expert reads whole rows of x"


@dataclass(frozen=True)
class Candidate:
    """A schedule that was looked at.

    forward, backward  what it is predicted to take; None: there is no backward
    memory             bytes that the fullest rank needs
    why                why it was chosen or not
    """

    what: str
    options: Options
    forward: Prediction
    backward: Prediction | None = None
    memory: float = 0.0
    why: str = ""

    @property
    def seconds(self) -> float:
        """Of both directions."""
        return self.forward.seconds + (self.backward.seconds if self.backward is not None else 0.0)


@dataclass(frozen=True)
class Inapplicable:
    """What other systems do, and why there is nothing to try here."""

    what: str
    why: str


@dataclass(frozen=True)
class Choice:
    """The schedule, and what it was chosen among.

    blocking  what is sent and waited for without a schedule: the measure of all others
    rejected  the best of each other kind, the fastest first
    tried     how many were predicted
    """

    schedules: Schedules
    chosen: Candidate
    blocking: Candidate
    rejected: tuple[Candidate, ...]
    inapplicable: tuple[Inapplicable, ...]
    tried: int

    @property
    def gain(self) -> float:
        """How many times as fast as the blocking one."""
        return self.blocking.seconds / self.chosen.seconds


@dataclass(frozen=True)
class Chooser:
    """What candidates are predicted with."""

    wiring: Wiring
    mesh: Mesh
    layer: Layer
    load: Load
    machine: Machine
    allowed: Allowed

    def choose(self) -> Choice:
        """The plainest of the fastest that fit into the devices' memory; where none does, the one that needs least."""
        found = [self.candidate(options) for options in self.options()]
        limit = self.mesh.memory or float("inf")
        fitting = [one for one in found if one.memory <= limit]
        if fitting:
            fastest = min(one.seconds for one in fitting)
            chosen = next(one for one in fitting if one.seconds <= fastest * (1 + NEGLIGIBLE))
        else:
            chosen = min(found, key=lambda one: one.memory)
        blocking = self.candidate(BLOCKING)
        schedules = both(self.wiring, chosen.options, self.allowed.training)
        rejected = tuple(self.others(chosen, found, limit))
        why = f"{blocking.seconds / chosen.seconds:.2f} times as fast as one blocking all-to-all each way"
        if not fitting:
            why = f"it needs the least memory, {_bytes(chosen.memory)}, which is more than the device's {_bytes(limit)}"
        chosen = replace(chosen, why=why)
        return Choice(schedules, chosen, blocking, rejected, tuple(self.inapplicable()), len(found) + 1)

    def options(self) -> Iterator[Options]:
        """All that the layout allows, from plain to intricate."""
        allowed, wiring = self.allowed, self.wiring
        chunks = (allowed.chunks,) if allowed.chunks is not None else CHUNKS if allowed.overlap else (1,)
        shared = ("dispatch", "combine") if wiring.shared and allowed.with_shared else ("last",)
        hierarchical = (False, True) if len(wiring.ep) > 1 else (False,)
        local = (None, *LOCAL_AT) if not wiring.tp and not allowed.training else (None,)
        splits = ("experts",) if allowed.training else ("tokens", "experts")
        for deep, near, split, count, at in product(hierarchical, local, splits, chunks, shared):
            if count == 1 and (near == "both" or (split == "experts" and "tokens" in splits)):
                continue
            for order in self.orders(split, count):
                few = count > 2 and order is None and not allowed.training and self.mesh.memory is not None
                for buffers in (None, 2) if few else (None,):
                    overlap = allowed.overlap if count > 1 else ("dispatch", "combine")
                    if buffers is None or len(overlap) == 2:
                        place = near or "dispatch"
                        yield Options(split, count, deep, True, near is not None, buffers, overlap, at, order, place)

    def orders(self, split: str, chunks: int) -> Iterator[tuple[int, ...] | None]:
        """Orders of the chunks: those with few pairs first, or last (Johnson's rule for two machines)."""
        yield None
        if split == "experts" and chunks > 1 and self.allowed.numbered:
            held, included = self.load.held, self.load.choices.included
            slots = np.asarray(held.slot)
            pairs = np.bincount(slots, included[list(held.expert)] * np.asarray(held.share), held.slots)
            loads = [pairs[held.slots * c // chunks : held.slots * (c + 1) // chunks].sum() for c in range(chunks)]
            for order in (np.argsort(loads, kind="stable"), np.argsort(loads, kind="stable")[::-1]):
                if order.tolist() != list(range(chunks)):
                    yield tuple(order.tolist())

    def candidate(self, options: Options) -> Candidate:
        """Predict one."""
        schedules = both(self.wiring, options, self.allowed.training)
        demand = Demand(schedules.forward, self.wiring, self.mesh, self.layer, self.load)
        forward = predict(demand, self.machine)
        backward = None
        if schedules.backward is not None:
            backward = predict(replace(demand, schedule=schedules.backward), self.machine)
        memory = sum(demand.memory().values())
        return Candidate(describe(options, self.wiring), options, forward, backward, memory)

    def others(self, chosen: Candidate, found: list[Candidate], limit: float) -> Iterator[Candidate]:
        """The best of those that differ from the chosen one in one way."""
        best: dict[str, Candidate] = {}
        plain = self.candidate(replace(chosen.options, deduplicate=False))
        for one in (*found, plain):
            for way, differs in DIFFERENCES.items():
                if differs(one.options, chosen.options) and (way not in best or one.seconds < best[way].seconds):
                    best[way] = one
        seen = set[Options]()
        for one in sorted(best.values(), key=lambda one: one.seconds):
            if one.options not in seen:
                seen.add(one.options)
                yield replace(one, why=_why_not(one, chosen, limit))

    def inapplicable(self) -> Iterator[Inapplicable]:
        """What the layer or its layout gives no occasion for, or leaves no choice about."""
        if len(self.wiring.ep) < 2:
            yield Inapplicable("hierarchical exchange", "experts lie along one axis")
        if self.wiring.same:
            over = " and ".join(self.wiring.same)
            times = self.mesh.size(self.wiring.same)
            why = (
                f"tokens are the same over {over}: each rank sends 1/{times} of them, not all, and results are gathered"
            )
            yield Inapplicable("sending tensor-parallel duplicates", why)
        yield Inapplicable("rows of lower dimension", self.allowed.low_dimension)


DIFFERENCES: dict[str, Callable[[Options, Options], bool]] = {
    "chunks": lambda a, b: a.chunks != b.chunks and a.split == b.split,
    "split": lambda a, b: a.split != b.split and a.chunks > 1,
    "hops": lambda a, b: a.hierarchical != b.hierarchical,
    "copies": lambda a, b: a.deduplicate != b.deduplicate,
    "local": lambda a, b: a.local_first != b.local_first,
    "local at": lambda a, b: a.local_first and b.local_first and a.local != b.local,
    "shared": lambda a, b: a.shared != b.shared,
    "order": lambda a, b: a.order != b.order and (a.split, a.chunks) == (b.split, b.chunks),
    "buffers": lambda a, b: a.buffers != b.buffers and a.chunks == b.chunks,
}
"""In which ways options differ."""


LOCAL = {"dispatch": "local first", "combine": "local last", "both": "local first and last"}


def describe(options: Options, wiring: Wiring) -> str:
    """Options in words."""
    over = ", then ".join((wiring.ep[0], "*".join(wiring.ep[1:]))) if options.hierarchical else "*".join(wiring.ep)
    parts = [f"{options.chunks} chunks by {options.split}" if options.chunks > 1 else "one chunk"]
    if wiring.ep:
        parts.append(f"hierarchical over {over}" if options.hierarchical else f"direct over {over}")
    parts.append("one copy of a row for each destination" if options.deduplicate else "one row for each pair")
    if options.local_first:
        parts.append(LOCAL[options.local])
    if wiring.shared:
        parts.append("shared experts " + ("after it" if options.shared == "last" else f"beside {options.shared}"))
    if options.order is not None:
        parts.append(f"chunks in the order {', '.join(map(str, options.order))}")
    if options.buffers is not None:
        parts.append(f"{options.buffers} sets of buffers")
    return "; ".join(parts)


def _why_not(one: Candidate, chosen: Candidate, limit: float) -> str:
    if one.memory > limit:
        return f"it needs {_bytes(one.memory)}, and a device has {_bytes(limit)}"
    slower = one.seconds / chosen.seconds - 1
    text = (
        f"{slower:.1%} slower"
        if slower >= 5e-4
        else "as fast, and less plain"
        if slower > -1e-3
        else f"{-slower:.1%} faster only, and less plain"
    )
    return ", ".join((text, *_differences(one, chosen)))


def _differences(one: Candidate, chosen: Candidate) -> Iterator[str]:
    """What of a candidate is notably more or less than of the chosen one."""
    for axis, before in chosen.forward.bytes.items():
        more = one.forward.bytes.get(axis, 0.0) - before
        if abs(more) > NEGLIGIBLE * before:
            yield f"{_bytes(abs(more))} {'more' if more > 0 else 'less'} over {axis}"
    times = {
        "of exchange with nothing beside it": (one.forward.alone, chosen.forward.alone),
        "of compute": (_computed(one), _computed(chosen)),
    }
    for what, (own, before) in times.items():
        if abs(own - before) > NEGLIGIBLE / 2 * chosen.forward.seconds:
            yield f"{abs(own - before) * 1e3:.3g} ms {'more' if own > before else 'less'} {what}"


def _computed(one: Candidate) -> float:
    return sum(span.end - span.begin for span in one.forward.spans if span.stream == COMPUTE)


def _bytes(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.3g} GiB"
