"""Units behind numbers, by what they measure; `1 Gbit/s` are 10^9 bits, and a byte has eight."""

from __future__ import annotations

from collections.abc import Mapping

BYTES = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0}
BANDWIDTH = {
    **{f"{prefix}bit/s": size / 8 for prefix, size in {"K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}.items()},
    **{f"{prefix}B/s": size for prefix, size in {"K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}.items()},
}
"""Bytes a second."""
FLOPS = {f"{prefix}FLOP/s": size for prefix, size in {"K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}.items()}
SHARE = {"%": 0.01}

KINDS: Mapping[str, Mapping[str, float]] = {
    "a number of bytes": BYTES,
    "a time": SECONDS,
    "a bandwidth": BANDWIDTH,
    "a compute rate": FLOPS,
    "a share": SHARE,
}

UNITS = tuple(unit for units in KINDS.values() for unit in units if unit != "%")

TYPICAL = ("Gbit/s", "GFLOP/s", "GiB", "ms", "%")
"""Of each kind the one that an example shows."""


def kind_of(unit: str) -> str:
    """What a unit measures, in words."""
    return next(kind for kind, units in KINDS.items() if unit in units)
