"""What was measured, as rows of a table and as data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.cuda.ceilings import Ceilings
from bench.cuda.shapes import Shape


@dataclass(frozen=True)
class Measured:
    """A call of a layer by a route; `seconds` is None where the route could not run, and `why` says why."""

    shape: Shape
    tokens: int
    route: str
    seconds: float | None
    why: str = ""


def prefill(rows: Sequence[Measured], ceilings: Ceilings) -> str:
    """Large batches: time, TFLOP/s of the experts, and share of the matmul ceiling."""
    lines = ["| layer | T | route | ms | TFLOP/s | of matmul | aim |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        name, tokens = row.shape.name, row.tokens
        if row.seconds is None:
            lines.append(f"| {name} | {tokens} | {row.route} | {row.why} | | | |")
            continue
        rate = row.shape.flops(tokens) / row.seconds / 1e12
        aim = f"{row.shape.aim:.0f}" if row.shape.aim is not None and row.route == "moec" else ""
        share = f"{rate / ceilings.matmul:.0%}"
        lines.append(f"| {name} | {tokens} | {row.route} | {row.seconds * 1e3:.3f} | {rate:.0f} | {share} | {aim} |")
    return "\n".join(lines)


def decode(rows: Sequence[Measured], experts: Sequence[int], ceilings: Ceilings) -> str:
    """Small batches: time, and how often it is that of reading the weights of the experts that were chosen.

    experts: how many different ones were, for each row.
    """
    lines = ["| layer | T | experts | route | µs | floor µs | times the floor |", "|---|---|---|---|---|---|---|"]
    for row, count in zip(rows, experts, strict=True):
        floor = row.shape.expert_bytes(count) / (ceilings.copy * 1e9)
        if row.seconds is None:
            lines.append(f"| {row.shape.name} | {row.tokens} | {count} | {row.route} | {row.why} | | |")
            continue
        times = row.seconds / floor
        cells = (row.shape.name, row.tokens, count, row.route, f"{row.seconds * 1e6:.1f}", f"{floor * 1e6:.1f}")
        lines.append(f"| {' | '.join(map(str, cells))} | {times:.2f} |")
    return "\n".join(lines)
