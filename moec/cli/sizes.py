"""Numbers of bytes as people read them."""

from __future__ import annotations


def size(nbytes: int) -> str:
    """`640 B`, `1.5 KiB`, `2.0 GiB`."""
    value, unit = float(nbytes), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{nbytes} B" if unit == "B" else f"{value:.1f} {unit}"
