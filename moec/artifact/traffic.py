"""The traffic that a layer is compiled for: how many tokens a call has, and how choices fall on experts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from moec.artifact.fields import Fields, InvalidManifest

STEEPEST = 16.0
"""The largest Zipf exponent: beyond it all that is not capped is zero."""
MOST_TOKENS = 2**31 - 1
MOST_EXPERTS = 2**20
_MAX_COUNT = 2**53
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_POWERS = {str(power): power for power in (0, *(1 << bit for bit in range(53)))}


@dataclass(frozen=True)
class Uniform:
    """Every expert is chosen equally often."""

    numbered = False

    def shares(self, experts: int, slots: int) -> tuple[float, ...]:
        """The share of all choices that falls on each of `experts`, where a token chooses `slots` of them."""
        return (1.0 / experts,) * experts


@dataclass(frozen=True)
class Zipf:
    """The i-th most chosen expert is chosen in proportion to i^-exponent; which expert that is is not known."""

    exponent: float
    numbered = False

    def shares(self, experts: int, slots: int) -> tuple[float, ...]:
        """The share of all choices by rank, the most chosen first.

        A token chooses an expert once at most, so no share is above 1 / slots: what a rank would have beyond that
        goes to the others, in proportion.
        """
        slots = min(slots, experts)
        weights = [float(rank) ** -self.exponent for rank in range(1, experts + 1)]
        tails = list(accumulate(reversed(weights)))[::-1]
        capped = 0
        while capped < slots and weights[capped] * (slots - capped) > tails[capped]:
            capped += 1
        if capped == slots:
            return (1.0 / slots,) * slots + (0.0,) * (experts - slots)
        rest, most = (1.0 - capped / slots) / tails[capped], 1.0 / slots
        return (most,) * capped + tuple(min(weight * rest, most) for weight in weights[capped:])


@dataclass(frozen=True)
class Observed:
    """What a trace holds: how often each expert was chosen, and how many calls had T tokens.

    counts     one number an expert, in the file's numbering
    histogram  calls by the power of two at or below their T (0 where T is 0), in ascending order
    """

    counts: tuple[int, ...]
    histogram: tuple[tuple[int, int], ...]
    numbered = True

    def shares(self, experts: int, slots: int) -> tuple[float, ...]:
        """The share of all choices of each expert.  Raises ValueError for another number of experts."""
        if experts != len(self.counts):
            raise ValueError(f"the trace is of {len(self.counts)} experts, not of {experts}")
        total = sum(self.counts)
        return tuple(count / total for count in self.counts) if total else Uniform().shares(experts, slots)


Routing = Uniform | Zipf | Observed
"""`shares(experts, slots)` gives what is expected; where `numbered` is true its entry i is that of expert i."""


@dataclass(frozen=True)
class Load:
    """A `load` of the file.

    tokens   the fewest and the most that a call has
    routing  how choices fall on experts
    """

    name: str
    tokens: tuple[int, int]
    routing: Routing


def load_data(load: Load) -> dict[str, Any]:
    """As JSON data, of which `read_load` makes an equal load."""
    match load.routing:
        case Zipf(exponent):
            routing: dict[str, Any] = {"kind": "zipf", "exponent": exponent}
        case Observed(counts, histogram):
            powers = {str(power): calls for power, calls in histogram}
            routing = {"kind": "trace", "counts": list(counts), "histogram": powers}
        case Uniform():
            routing = {"kind": "uniform"}
    return {"name": load.name, "tokens": list(load.tokens), "routing": routing}


def read_load(fields: Fields) -> Load:
    """Parse and check.  Raises InvalidManifest."""
    load = Load(fields.string("name", _NAME), fields.pair("tokens", 0, MOST_TOKENS), _routing(fields.record("routing")))
    fields.finish()
    return load


def _routing(fields: Fields) -> Routing:
    routing: Routing = Uniform()
    match fields.choice("kind", ("uniform", "zipf", "trace")):
        case "zipf":
            routing = Zipf(fields.number_in("exponent", 0.0, STEEPEST))
        case "trace":
            counts = fields.integers("counts", 0, _MAX_COUNT, MOST_EXPERTS)
            if not counts:
                raise InvalidManifest(f"{fields.path}.counts must have an entry for each expert")
            routing = Observed(counts, _histogram(fields.mapping("histogram"), f"{fields.path}.histogram"))
    fields.finish()
    return routing


def _histogram(data: Mapping[str, Any], at: str) -> tuple[tuple[int, int], ...]:
    calls = Fields(data, at)
    for key in data:
        if key not in _POWERS:
            raise InvalidManifest(f"{at} must have powers of two as keys, not {key[:20]!r}")
    return tuple(sorted((_POWERS[key], calls.integer(key, 0, _MAX_COUNT)) for key in data))
