"""Which variants a policy allows for a load, and what each of them should gain.

Predictions are rough: a variant is measured against the old one before it stays, so a prediction only tells what is
worth compiling.  Time is modelled an expert: reading its weights, or multiplying its rows, whichever takes longer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from moec.artifact.allowed import capacities, coldest, range_gain, regimes
from moec.artifact.manifest import Manifest
from moec.artifact.policy import Coldest, Policy
from moec.artifact.specialisation import Specialisation
from moec.formats import FORMATS
from moec.runtime.adapt.contracts import Proposal
from moec.runtime.adapt.statistics import Snapshot

_OVERFLOW = 0.01
"""The share of slots that a refitted capacity may drop."""
_BALANCED_ROWS = 17.0
"""Rows of an expert for which multiplying takes as long as reading its weights: 935 GFLOP/s over 55 GB/s, bf16 on two
Zen 5 cores (docs/performance-cpu-kernels.md)."""
_STALE = 1.25
"""How much more load cold experts may have than the coldest ones before they are chosen anew."""

Shares = NDArray[np.float64]


@dataclass(frozen=True)
class Candidates:
    """The proposer of a policy.

    slots        how many experts a token chooses
    weight_bits  of the experts' weights as the layer has them
    gain         what a variant for a range of tokens gains, by the most tokens of the range
    """

    policy: Policy
    slots: int
    weight_bits: float
    gain: Callable[[int], float] = lambda most: 1.0

    @classmethod
    def of(cls, policy: Policy, manifest: Manifest, code: str) -> Candidates:
        """For the layer of an artifact, of which the instruction set `code` runs."""
        slots = max((statistic.slots for statistic in manifest.statistics), default=1)
        floats = [weight for weight in manifest.parameters if len(weight.shape) == 3]
        bits = 8 * max((weight.nbytes / math.prod(weight.shape) for weight in floats), default=4)
        return cls(policy, slots, bits, partial(range_gain, manifest, code=code))

    def propose(self, load: Snapshot, running: Sequence[Specialisation]) -> Sequence[Proposal]:
        """What gains most for its calls first; nothing that runs already."""
        found = [*self._ranges(), *self._capacities(load), *self._cold(load, running)]
        there = {one.content for one in running}
        fresh = [proposal for proposal in found if proposal.specialisation.content not in there]
        return sorted(fresh, key=lambda proposal: -proposal.gain)

    def _ranges(self) -> list[Proposal]:
        """All whose code would be another: how many calls lie in them, whoever weighs proposals up knows."""
        ranges = ((one, one.tokens) for one in regimes(self.policy))
        gains = ((one, tokens, self.gain(tokens[1])) for one, tokens in ranges if tokens is not None)
        return [
            Proposal(one, gain, f"calls of {tokens[0]} to {tokens[1]} tokens")
            for one, tokens, gain in gains
            if gain > 1
        ]

    def _capacities(self, load: Snapshot) -> list[Proposal]:
        """The smallest factor that drops next to nothing of this load, else the largest."""
        allowed = capacities(self.policy)
        if not allowed or not load.shares.any():
            return []
        dropped = {one.name: overflow(load.shares, one.capacity) for one in allowed if one.capacity is not None}
        fitting = [one for one in allowed if dropped[one.name] <= _OVERFLOW]
        found = fitting[0] if fitting else allowed[-1]
        kept = 1 - dropped[found.name]
        gain = kept / max(1 - load.overflow, 1e-9)
        why = f"keeps {kept:.1%} of the choices instead of {1 - load.overflow:.1%}"
        return [Proposal(found, gain, why, work=gain)]

    def _cold(self, load: Snapshot, running: Sequence[Specialisation]) -> list[Proposal]:
        """For each alternative, the experts that are chosen least now."""
        if not load.shares.any():
            return []
        found = []
        for one, allowed in zip(coldest(self.policy, load.shares.tolist()), self.policy.quantise, strict=True):
            share = float(load.shares[list(one.numbers)].sum())
            limit = _STALE * (share + 1 / load.shares.size)
            there = (q for other in running for q in other.quantised if (q.experts, q.format) == _kind(allowed))
            if not any(float(load.shares[list(q.numbers)].sum()) <= limit for q in there):
                why = f"{len(one.numbers)} experts take {share:.1%} of the choices"
                found.append(Proposal(one, self._gain(load, one.numbers, allowed), why))
        return found

    def _gain(self, load: Snapshot, numbers: Sequence[int], coldest: Coldest) -> float:
        """Time of recent calls before over after, where these experts take fewer bytes."""
        rows = load.shares * load.tokens * self.slots
        touched = -np.expm1(-rows)
        multiply = rows / np.maximum(touched, 1e-12) / _BALANCED_ROWS
        read = np.ones_like(rows)
        before = touched @ np.maximum(read, multiply)
        read[list(numbers)] = self._bits(coldest) / self.weight_bits
        after = touched @ np.maximum(read, multiply)
        return float(before / after) if after else 1.0

    @staticmethod
    def _bits(coldest: Coldest) -> float:
        """Of one weight and its part of a scale."""
        scale = {"f32": 32, "bf16": 16}[coldest.scale]
        return FORMATS[coldest.format].bits + (scale / coldest.group if coldest.group else 0)


def overflow(shares: Shares, factor: float) -> float:
    """The share of the slots that a capacity of `factor` drops of a large batch with these shares of experts."""
    return float(np.maximum(shares - factor / shares.size, 0).sum())


def _kind(coldest: Coldest) -> tuple[str, str]:
    return coldest.experts, coldest.format
