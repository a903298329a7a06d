"""Which variants a policy allows for a load, and what each of them should gain.

Predictions are rough: a variant is measured against the old one before it stays, so a prediction only tells what is
worth compiling.  Time is modelled an expert: reading its weights, or multiplying its rows, whichever takes longer.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moec.artifact.manifest import Manifest
from moec.artifact.policy import Coldest, Policy, Trigger
from moec.artifact.specialisation import QuantisedExperts, Specialisation
from moec.formats import FORMATS
from moec.runtime.adapt.contracts import Proposal
from moec.runtime.adapt.statistics import Snapshot

_OVERFLOW = 0.01
"""The share of slots that a refitted capacity may drop."""
_STEP = 0.25
"""Capacities are multiples of it: the fewer there are, the more often one is there already."""
_BALANCED_ROWS = 30.0
"""Rows of an expert for which multiplying takes as long as reading its weights (measured, bf16 on a Zen 5 core)."""
_STALE = 1.25
"""How much more load cold experts may have than the coldest ones before they are chosen anew."""

Shares = NDArray[np.float64]


@dataclass(frozen=True)
class Candidates:
    """The proposer of a policy.

    slots        how many experts a token chooses
    weight_bits  of the experts' weights as the layer has them
    range_gain   what a variant for a range of tokens gains: measured, see docs/performance-adaptation.md
    """

    policy: Policy
    slots: int
    weight_bits: float
    range_gain: float = 1.0

    @classmethod
    def of(cls, policy: Policy, manifest: Manifest) -> Candidates:
        """For the layer of an artifact."""
        slots = max((statistic.slots for statistic in manifest.statistics), default=1)
        floats = [weight for weight in manifest.parameters if len(weight.shape) == 3]
        bits = 8 * max((weight.nbytes / math.prod(weight.shape) for weight in floats), default=4)
        return cls(policy, slots, bits)

    def propose(self, trigger: Trigger, load: Snapshot, running: Sequence[Specialisation]) -> Sequence[Proposal]:
        """Best first; nothing that runs already."""
        found = [*self._ranges(load), *self._capacities(load), *self._cold(load, running)]
        there = [(one.tokens, one.capacity, one.quantised) for one in running]
        fresh = [
            proposal
            for proposal in found
            if (proposal.specialisation.tokens, proposal.specialisation.capacity, proposal.specialisation.quantised)
            not in there
        ]
        return sorted(fresh, key=lambda proposal: -proposal.gain)

    def _ranges(self, load: Snapshot) -> list[Proposal]:
        """The range that recent calls lie in."""
        tokens = round(load.tokens)
        return [
            Proposal(
                Specialisation(f"tokens_{first}_{last}", tokens=(first, last)),
                self.range_gain,
                f"recent calls have {load.tokens:.0f} tokens on average",
            )
            for first, last in self.policy.tokens
            if first <= tokens <= last
        ]

    def _capacities(self, load: Snapshot) -> list[Proposal]:
        """The smallest factor that drops next to nothing of this load."""
        if self.policy.capacity is None or not load.shares.any():
            return []
        factor = fitted_capacity(load.shares, *self.policy.capacity)
        kept = 1 - overflow(load.shares, factor)
        specialisation = Specialisation(f"capacity_{factor:g}".replace(".", "_"), capacity=factor)
        gain = kept / max(1 - load.overflow, 1e-9)
        return [Proposal(specialisation, gain, f"keeps {kept:.1%} of the choices instead of {1 - load.overflow:.1%}")]

    def _cold(self, load: Snapshot, running: Sequence[Specialisation]) -> list[Proposal]:
        """For each alternative, the experts that are chosen least now."""
        if not load.shares.any():
            return []
        found = []
        for coldest in self.policy.quantise:
            numbers = least(load.shares, coldest.count)
            now = [
                one
                for other in running
                for one in other.quantised
                if (one.experts, one.format) == (coldest.experts, coldest.format)
            ]
            share = float(load.shares[list(numbers)].sum())
            floor = share + 1 / load.shares.size
            if any(float(load.shares[list(one.numbers)].sum()) <= _STALE * floor for one in now):
                continue
            quantised = QuantisedExperts(coldest.experts, numbers, coldest.format, coldest.group, coldest.scale)
            gain = self._gain(load, numbers, coldest)
            why = f"{len(numbers)} experts take {share:.1%} of the choices"
            found.append(Proposal(Specialisation(_named(quantised), quantised=(quantised,)), gain, why))
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


def fitted_capacity(shares: Shares, lowest: float, highest: float) -> float:
    """The smallest multiple of a step within the range that drops at most one slot in a hundred, or the highest."""
    factor = max(lowest, math.ceil(lowest / _STEP) * _STEP)
    if overflow(shares, lowest) <= _OVERFLOW:
        return lowest
    while factor < highest and overflow(shares, factor) > _OVERFLOW:
        factor += _STEP
    return min(factor, highest)


def least(shares: Shares, count: int) -> tuple[int, ...]:
    """The `count` experts of the smallest shares, ascending; of equal ones the higher number is colder."""
    order = sorted(range(shares.size), key=lambda expert: (shares[expert], -expert))
    return tuple(sorted(order[:count]))


def _named(quantised: QuantisedExperts) -> str:
    digest = hashlib.sha256(repr(quantised).encode()).hexdigest()[:8]
    return f"cold_{quantised.format}_{digest}"
