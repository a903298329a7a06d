"""`moec trace`: what a recorded trace says about the load of a layer."""

from __future__ import annotations

from datetime import UTC, datetime
from math import log
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from moec.artifact.traffic import MOST_TOKENS, STEEPEST, Zipf
from moec.cli.console import output_console
from moec.errors import TraceError
from moec.trace import Summary, summarise

SHOWN = 5
"""Experts that are listed of the most and of the least chosen ones."""


def command(
    file: Annotated[Path, typer.Argument(help="A trace, as `layer.statistics.record(FILE)` writes it.")],
) -> None:
    """Show how many tokens calls had, how choices fell on experts, and the `load` that says so."""
    try:
        summary = summarise(file)
    except TraceError as why:
        raise TraceError(f"{file}: {why}") from None
    console = output_console()
    console.print(_about(summary))
    if summary.calls:
        console.print(_calls(summary))
        console.print(f"\n{escape(load_text(summary, file))}", highlight=False)


def load_text(summary: Summary, file: Path) -> str:
    """A `load` statement for a `.moe` file beside the trace."""
    powers = [power for power, calls in summary.histogram.items() if calls]
    batch = f"{min(powers)}..{min(max(2 * max(powers) - 1, 0), MOST_TOKENS)}"
    return f'load Recorded {{\n  batch   = {batch}\n  routing = trace("{file.name}")\n}}'


def fitted(counts: list[int], slots: int) -> float:
    """The exponent of the Zipf's law under which the counts, sorted, are likeliest; by ternary search."""
    ranked = sorted(counts, reverse=True)

    def surprise(exponent: float) -> float:
        shares = Zipf(exponent).shares(len(ranked), slots)
        return -sum(count * log(max(share, 1e-300)) for count, share in zip(ranked, shares, strict=True) if count)

    low, high = 0.0, STEEPEST
    while high - low > 1e-3:
        third = (high - low) / 3
        if surprise(low + third) <= surprise(high - third):
            high -= third
        else:
            low += third
    return (low + high) / 2


def _about(summary: Summary) -> Table:
    header, counts = summary.header, summary.counts
    table = Table(title=escape(header.layer), title_justify="left", show_header=False)
    table.add_row("layer", f"{header.experts:,} experts, {header.slots:,} for each token")
    table.add_row("calls", f"{summary.calls:,} with {summary.tokens:,} tokens in {summary.samples:,} samples")
    if summary.begin is not None and summary.end is not None:
        first = datetime.fromtimestamp(summary.begin, UTC).strftime("%Y-%m-%d %H:%M:%S")
        table.add_row("recorded", f"{summary.end - summary.begin:,.0f} s from {first} UTC")
    total = sum(counts)
    if total:
        order = sorted(range(len(counts)), key=lambda expert: (-counts[expert], expert))
        table.add_row("imbalance", f"{max(counts) * len(counts) / total:.2f}, where 1 is even")
        table.add_row("most chosen", ", ".join(f"{e} ({counts[e] / total:.2%})" for e in order[:SHOWN]))
        table.add_row("least chosen", ", ".join(f"{e} ({counts[e] / total:.2%})" for e in order[: -SHOWN - 1 : -1]))
        table.add_row("never chosen", f"{counts.count(0):,} experts")
        table.add_row("most like", f"zipf({fitted(counts, header.slots):.2f})")
    return table


def _calls(summary: Summary) -> Table:
    table = Table("tokens a call", "calls", "", title="Calls", title_justify="left")
    for power, calls in sorted(summary.histogram.items()):
        name = f"{power:,} to {2 * power - 1:,}" if power > 1 else str(power)
        share = calls / summary.calls
        table.add_row(name, f"{calls:,}", f"{share:6.1%} {'█' * round(40 * share)}")
    return table
