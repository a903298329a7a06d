"""The specialisations that a policy allows, by one rule for what is compiled ahead and what while a layer runs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from moec.artifact.manifest import Manifest
from moec.artifact.policy import Coldest, Policy
from moec.artifact.specialisation import QuantisedExperts, Specialisation

DECODE_GAIN = 1.1
"""How many times as fast calls of few rows an expert are with wide panels: measured, mostly 1.03 to 1.31
(docs/performance-adaptation.md)."""

SIDE_BY_SIDE = frozenset({"avx2"})
"""Instruction sets whose ordinary code multiplies few rows by several panels side by side: wide ones gain nothing."""

FEW_ROWS = 2
"""Rows of an expert, on average, up to which wide panels are faster."""

CACHED_BYTES = 32 * 2**20
"""Weights of a layer up to which its caches, and not its memory, are what a call of few tokens waits for; they also
bound the second packed form that wide panels need."""

_STEPS = 4
_DIGITS = 3


def regimes(policy: Policy) -> tuple[Specialisation, ...]:
    """One for every range of tokens."""
    return tuple(Specialisation(f"tokens_{least}_{most}", (least, most)) for least, most in policy.tokens)


def few_rows(most: int, slots: int, experts: int, weight_bytes: int) -> bool:
    """Whether calls of up to `most` tokens are faster with wide panels, in a layer with weights of so many bytes."""
    return most * slots <= FEW_ROWS * experts and weight_bytes <= CACHED_BYTES


def range_gain(manifest: Manifest, most: int, code: str | None = None) -> float:
    """How many times as fast a variant for up to `most` tokens a call should be; 1 where there is nothing to gain.

    code  the instruction set that the layer runs; None: that for which it gains most
    """
    if code in SIDE_BY_SIDE:
        return 1.0
    weight_bytes = sum(weight.nbytes for weight in manifest.parameters)
    few = (few_rows(most, one.slots, one.row[0], weight_bytes) for one in manifest.statistics)
    return DECODE_GAIN if manifest.statistics and manifest.quantised is None and all(few) else 1.0


def capacities(policy: Policy) -> tuple[Specialisation, ...]:
    """A few factors between those of the policy, both among them, each the same multiple of the one before.

    Factors come in steps so that a variant that is there already serves a load that has changed a little.
    """
    if policy.capacity is None:
        return ()
    low, high = policy.capacity
    inner = (float(f"{low * (high / low) ** (i / _STEPS):.{_DIGITS}g}") for i in range(1, _STEPS))
    factors = sorted({low, *(factor for factor in inner if low < factor < high), high})
    return tuple(Specialisation(_capacity_name(factor), None, factor) for factor in factors)


def coldest(policy: Policy, counts: Sequence[float]) -> tuple[Specialisation, ...]:
    """For every alternative of the policy, the experts that were chosen least, of equal ones those of higher numbers.

    counts: for each routed expert how often it was chosen.
    """
    return tuple(_cold(one, counts) for one in policy.quantise)


def _capacity_name(factor: float) -> str:
    return "capacity_" + repr(factor).replace(".", "_").replace("+", "").replace("-", "m")


def _cold(one: Coldest, counts: Sequence[float]) -> Specialisation:
    order = sorted(range(len(counts)), key=lambda expert: (counts[expert], -expert))
    numbers = tuple(sorted(order[: one.count]))
    which = hashlib.sha256(",".join(map(str, numbers)).encode()).hexdigest()[:8]
    experts = QuantisedExperts(one.experts, numbers, one.format, one.group, one.scale)
    return Specialisation(f"cold_{one.format}_{one.count}_{which}", None, None, (experts,))
