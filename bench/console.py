"""Cells as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Table

from bench.cell import Cell
from bench.limits import Limits
from bench.targets import most_over_limit, verdict


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3g}" if seconds < 0.1 else f"{seconds * 1e3:.0f}"


def _ratio(value: float, good: float) -> str:
    colour = "green" if value <= good else "yellow" if value <= 1.3 * good else "red"
    return f"[{colour}]{value:.2f}×[/{colour}]"


def _note(cell: Cell) -> str:
    return "busy" if cell.busy else ""


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
    """One row a cell and way to use moec: its time, the best peer's, the limit, and what they are to each other."""
    out = _plain_table(title)
    out.add_column("", no_wrap=True)
    for heading in ("T", "moec", "peer", "limit", "moec/\nlimit", "peer/\nlimit", "moec/\npeer", "error"):
        out.add_column(heading, justify="right", no_wrap=True)  # a number that is cut would be another number
    for heading in ("best peer", "targets", ""):
        out.add_column(heading, overflow="fold")
    for cell in cells:
        peer = cell.best_peer
        theirs = cell.timings[peer].seconds if peer else None
        names: list[str | None] = [*cell.names("ours")] or [None]
        for name in names:
            ours = cell.timings[name] if name else None
            limit = cell.limit_of(name) if name else cell.limit_seconds()
            out.add_row(
                name or "",
                str(cell.tokens),
                _ms(ours.seconds) if ours else "–",
                _ms(theirs) if theirs else "–",
                _ms(limit),
                _ratio(ours.seconds / limit, most_over_limit(cell)) if ours else "–",
                f"{theirs / cell.limit_seconds():.2f}×" if theirs else "–",
                _ratio(ours.seconds / theirs, 1.0) if ours and theirs else "–",
                f"{ours.error:.0e}" if ours else "–",
                peer or "–",
                verdict(cell, name) if name else "–",
                _note(cell),
            )
    return out


def full_table(cells: Sequence[Cell], title: str) -> Table:
    """One row a cell, one column a route: milliseconds and error (in training the largest, gradients included)."""
    routes = list(dict.fromkeys(name for cell in cells for name in cell.timings))
    out = _plain_table(title)
    for heading in ("T", "limit", *routes):
        out.add_column(heading, justify="right", no_wrap=True)
    out.add_column("")
    for cell in cells:
        timings = [cell.timings.get(name) for name in routes]
        shown = [f"{_ms(t.seconds)} ({max([t.error, *t.gradient_errors.values()]):.0e})" if t else "–" for t in timings]
        out.add_row(str(cell.tokens), _ms(cell.limit_seconds()), *shown, _note(cell))
    return out
