"""How fast a cell is meant to be, and whether it is."""

from __future__ import annotations

from bench.cell import Cell

MEMORY_BOUND, MIXED = 16, 128
"""Up to so many tokens reading the weights takes longest; up to so many, reading and computing take about as long."""
AT_THE_LIMIT = 1.05
"""A peer this near the limit has left nothing to be faster by …"""
LEVEL = 1.03
"""… so that this much of its time counts as level with it."""

_PLAIN = (1.05, 1.25, 1.10)
_QUANTISED = {"int8": (1.15, 1.5, 1.25), "int4": (1.15, 1.5, 1.4), "ternary": (1.15, 1.5, 1.4)}
_TRAINING = 1.3


def most_over_limit(cell: Cell) -> float:
    """How many times the limit a cell may take."""
    if cell.mode == "training":
        return _TRAINING
    few, some, many = _QUANTISED.get(cell.format, _PLAIN)
    return few if cell.tokens <= MEMORY_BOUND else some if cell.tokens <= MIXED else many


def verdict(cell: Cell, route: str) -> str:
    """ "met", or which targets `route`, one of ours, misses: "limit", "peer".

    Only the fastest of our routes has to be ahead of the peers; the others compute something more exact.
    """
    missed = []
    seconds = cell.timings[route].seconds
    if seconds > most_over_limit(cell) * cell.limit_of(route):
        missed.append("limit")
    peer = cell.best_peer
    if peer is not None and route == cell.fastest:
        theirs = cell.timings[peer].seconds
        allowed = LEVEL if theirs <= AT_THE_LIMIT * cell.limit_seconds() else 1.0
        if seconds > allowed * theirs:
            missed.append("peer")
    return ", ".join(missed) or "met"
