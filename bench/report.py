"""Cells as tables for people and as JSON for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from bench.limits import Limits
from bench.measure import Cell

OURS = "moec"
DISTURBED = 0.15  # cores used by others from which a row is marked "busy"


def best_peer(cell: Cell) -> str | None:
    """The fastest route that is not moec."""
    peers = [name for name in cell.timings if name != OURS]
    return min(peers, key=lambda name: cell.timings[name].seconds, default=None)


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3g}" if seconds < 0.1 else f"{seconds * 1e3:.0f}"


def _ratio(value: float, good: float, fair: float) -> str:
    colour = "green" if value <= good else "yellow" if value <= fair else "red"
    return f"[{colour}]{value:.2f}×[/{colour}]"


def _note(cell: Cell) -> str:
    return "busy" if cell.other_cores > DISTURBED else ""


def limits_line(limits: Limits, measured_by: Mapping[str, str], threads: int) -> str:
    """`measured_by`: Prober.measured_by."""
    peaks = {"f32": limits.f32, "bf16": limits.bf16, "int8": limits.int8}
    arithmetic = " · ".join(f"{name} {peak / 1e9:.0f} GFLOP/s ({measured_by[name]})" for name, peak in peaks.items())
    return f"Limits of this machine, {threads} threads: {arithmetic} · memory {limits.dram / 1e9:.1f} GB/s"


def _plain_table(title: str) -> Table:
    return Table(
        title=f"{title}, milliseconds",
        title_justify="left",
        title_style="bold",
        box=None,
        padding=(0, 1, 0, 0),
        header_style="dim",
    )


def table(cells: Sequence[Cell], title: str) -> Table:
    """One row a cell: moec, the best peer, the limit, and what they are to each other."""
    out = _plain_table(title)
    for heading in ("T", "moec", "peer", "limit", "moec/limit", "peer/limit", "moec/peer", "error"):
        out.add_column(heading, justify="right", no_wrap=True)
    out.add_column("best peer", no_wrap=True)
    out.add_column("", no_wrap=True)
    for cell in cells:
        ours, limit, peer = cell.timings.get(OURS), cell.limit_seconds, best_peer(cell)
        theirs = cell.timings[peer].seconds if peer else None
        out.add_row(
            str(cell.tokens),
            _ms(ours.seconds) if ours else "–",
            _ms(theirs) if theirs else "–",
            _ms(limit),
            _ratio(ours.seconds / limit, 1.1, 1.5) if ours else "–",
            f"{theirs / limit:.2f}×" if theirs else "–",
            _ratio(ours.seconds / theirs, 1.0, 1.0) if ours and theirs else "–",
            f"{ours.error:.0e}" if ours else "–",
            peer or "–",
            _note(cell),
        )
    return out


def full_table(cells: Sequence[Cell], title: str) -> Table:
    """One row a cell, one column a route: milliseconds and error."""
    routes = list(dict.fromkeys(name for cell in cells for name in cell.timings))
    out = _plain_table(title)
    for heading in ("T", "limit", *routes):
        out.add_column(heading, justify="right", no_wrap=True)
    out.add_column("")
    for cell in cells:
        timings = [cell.timings.get(name) for name in routes]
        shown = [f"{_ms(t.seconds)} ({t.error:.0e})" if t else "–" for t in timings]
        out.add_row(str(cell.tokens), _ms(cell.limit_seconds), *shown, _note(cell))
    return out


def as_json(cell: Cell) -> dict[str, Any]:
    """Seconds, FLOP and bytes; ratios are of medians."""
    ours, peer, limit = cell.timings.get(OURS), best_peer(cell), cell.limit_seconds
    return {
        "shape": cell.shape,
        "dtype": cell.dtype,
        "routing": cell.routing,
        "tokens": cell.tokens,
        "flop": cell.flop,
        "touched_bytes": cell.touched_bytes,
        "limits": limits_json(cell.limits),
        "limit_seconds": limit,
        "routes": {
            name: {"seconds": t.seconds, "turns": t.turns, "error": t.error, "over_limit": t.seconds / limit}
            for name, t in cell.timings.items()
        },
        "skipped": cell.skipped,
        "best_peer": peer,
        "moec_over_peer": ours.seconds / cell.timings[peer].seconds if ours and peer else None,
        "moec_over_limit": ours.seconds / limit if ours else None,
        "other_cores": cell.other_cores,
    }


def limits_json(limits: Limits) -> dict[str, float]:
    return {
        "f32_flop_per_s": limits.f32,
        "bf16_flop_per_s": limits.bf16,
        "int8_flop_per_s": limits.int8,
        "dram_bytes_per_s": limits.dram,
    }
