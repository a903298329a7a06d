"""What one measurement found: times and errors of every route, beside the limits of the same moments."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Any

from bench.formats import FORMATS
from bench.limits import Limits
from bench.routes import ROUTES

DISTURBED = 0.15  # cores used by others from which a cell is marked "busy"
TRAINING_WORK = 3
"""A step's FLOP and bytes over those of its forward pass: the gradients of x and of the weights cost as much each."""


@dataclass
class Timing:
    """One route in one cell. `turns`: median seconds of a call in each of its turns."""

    error: float
    """Relative Frobenius error against float64: of outputs, on the first tokens."""
    gradient_errors: dict[str, float] = field(default_factory=dict)
    """The same of gradients, in training."""
    turns: list[float] = field(default_factory=list)
    checked_seconds: float = field(default=0.0, compare=False)
    """What the call that was checked took: a hint of how long to call, and whether to warm up."""

    @property
    def seconds(self) -> float:
        """Median over the turns."""
        return statistics.median(self.turns)


@dataclass
class Cell:
    """One layer at one number of tokens. FLOP and bytes are those of a whole step in training."""

    shape: str
    format: str
    mode: str
    """"inference" or "training" (forward, backward; gradients of x and of all weights)."""
    routing: str
    tokens: int
    threads: int
    flop: float
    touched_bytes: float
    limits: Limits
    timings: dict[str, Timing]
    skipped: dict[str, str]
    other_cores: float
    """Cores that other processes used meanwhile (0 where the system does not tell)."""

    def limit_seconds(self, arithmetic: str | None = None) -> float:
        """The least time, in the format's fastest arithmetic unless another is named."""
        return self.limits.seconds(arithmetic or FORMATS[self.format].arithmetic, self.flop, self.touched_bytes)

    def limit_of(self, route: str) -> float:
        """The least time in the arithmetic that `route` multiplies in."""
        return self.limit_seconds(ROUTES[route].arithmetic if route in ROUTES else None)

    def names(self, role: str) -> list[str]:
        """The measured routes of a role (bench/routes/table.py); one without an entry there is a peer."""
        return [name for name in self.timings if (ROUTES[name].role if name in ROUTES else "peer") == role]

    @property
    def best_peer(self) -> str | None:
        """The fastest route that is not moec."""
        return min(self.names("peer"), key=lambda name: self.timings[name].seconds, default=None)

    @property
    def fastest(self) -> str | None:
        """The fastest way to use moec."""
        return min(self.names("ours"), key=lambda name: self.timings[name].seconds, default=None)

    @property
    def busy(self) -> bool:
        """Whether others used the machine."""
        return self.other_cores > DISTURBED

    def as_json(self) -> dict[str, Any]:
        """Seconds, FLOP and bytes; ratios are of medians."""
        routes = {}
        for name, timing in self.timings.items():
            limit = self.limit_of(name)
            routes[name] = {
                "seconds": timing.seconds,
                "turns": timing.turns,
                "error": timing.error,
                "gradient_errors": timing.gradient_errors,
                "limit_seconds": limit,
                "over_limit": timing.seconds / limit,
            }
        ours, peer = self.fastest, self.best_peer
        return {
            "shape": self.shape,
            "format": self.format,
            "mode": self.mode,
            "routing": self.routing,
            "tokens": self.tokens,
            "threads": self.threads,
            "flop": self.flop,
            "touched_bytes": self.touched_bytes,
            "limits": limits_json(self.limits),
            "routes": routes,
            "skipped": self.skipped,
            "best_peer": peer,
            "moec_over_peer": self.timings[ours].seconds / self.timings[peer].seconds if ours and peer else None,
            "other_cores": self.other_cores,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Cell:
        """The cell that `as_json` made `data` of."""
        timings = {
            name: Timing(route["error"], route["gradient_errors"], route["turns"])
            for name, route in data["routes"].items()
        }
        same = ("shape", "format", "mode", "routing", "tokens", "threads", "flop", "touched_bytes", "skipped")
        return cls(
            **{name: data[name] for name in same},
            limits=limits_from_json(data["limits"]),
            timings=timings,
            other_cores=data["other_cores"],
        )


def limits_json(limits: Limits) -> dict[str, float]:
    return {
        "f32_flop_per_s": limits.f32,
        "bf16_flop_per_s": limits.bf16,
        "int8_flop_per_s": limits.int8,
        "dram_bytes_per_s": limits.dram,
    }


def limits_from_json(data: dict[str, float]) -> Limits:
    return Limits(data["f32_flop_per_s"], data["bf16_flop_per_s"], data["int8_flop_per_s"], data["dram_bytes_per_s"])
