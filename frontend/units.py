"""Units behind numbers: bytes and times."""

from __future__ import annotations

BYTES = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
SECONDS = {"s": 1.0, "min": 60.0}
