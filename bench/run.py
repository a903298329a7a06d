"""Measures a group of cells and keeps what was found in a file of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bench import machine
from bench.cell import Cell, limits_json
from bench.formats import FORMATS
from bench.groups import Group
from bench.layer import TORCH_DTYPE, Layer
from bench.limits import Limits, Prober
from bench.measure import Plan, measure_cell
from bench.routes import ROUTES, Unavailable, routes_for
from bench.training import measure_training_cell

Built = Any
"""A Run, or a Trainable for training."""


@dataclass(frozen=True)
class Bench:
    """What all groups of a run share."""

    prober: Prober
    limits: Limits
    """The best of the machine, measured once."""
    plan: Plan
    compiled: bool
    say: Callable[[str, int], None]
    """Told what is going on, and how many cells are done since it was told last."""


def build(group: Group, layer: Layer, bench: Bench, skipped: dict[str, str]) -> dict[str, Built]:
    """The routes that can run here; the others go into `skipped` with the reason."""
    built: dict[str, Built] = {}
    for name in group.routes or routes_for(group.format, group.mode, bench.compiled):
        bench.say(f"{group.name}: building {name}", 0)
        route = ROUTES[name]
        training = group.mode == "training"
        try:
            _require_memory(layer, group.format)
            built[name] = (route.build_training if training else route.build)(layer, group.format)
        except Unavailable as why:
            skipped[name] = str(why)
    return built


def _require_memory(layer: Layer, format: str) -> None:
    """Unavailable where a copy of the weights and half of one more, for packing, do not fit in memory."""
    size = sum(weight.numel() for weight in layer.weights("bf16").values()) * TORCH_DTYPE[FORMATS[format].x].itemsize
    free = machine.available_bytes()
    if 1.5 * size > free:
        raise Unavailable(f"{size / 1e9:.1f} GB of weights and only {free / 1e9:.1f} GB of memory")


def measure(group: Group, layer: Layer, bench: Bench) -> tuple[list[Cell], dict[str, str]]:
    """All cells of a group, and the routes that were left out with the reason."""
    skipped: dict[str, str] = {}
    routes = build(group, layer, bench, skipped)
    plan = replace(bench.plan, rounds=group.rounds, turn_seconds=group.turn_seconds)
    measure_one = measure_training_cell if group.mode == "training" else measure_cell
    cells = []
    for routing in group.routings:
        for tokens in group.tokens:
            bench.say(f"{group.name}: {routing} T={tokens}", 0)
            cells.append(measure_one(layer, group.format, routing, tokens, routes, bench.prober, plan))
            bench.say(group.name, 1)
    for cell in cells:
        for name, why in cell.skipped.items():
            skipped.setdefault(name, f"from T={cell.tokens}: {why}")
    return cells, skipped


def write(path: Path, group: Group, cells: Sequence[Cell], skipped: dict[str, str], bench: Bench) -> None:
    """The group's file; it is there whole or not at all, so that an interrupted run can go on behind it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    result = {
        "machine": machine.describe(),
        "threads": bench.prober.threads,
        "limits": limits_json(bench.limits) | {"measured_by": bench.prober.measured_by},
        "plan": {"priority": bench.plan.priority},
        "group": asdict(group),
        "cells": [cell.as_json() for cell in cells],
        "skipped": skipped,
    }
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(result, indent=1) + "\n")
    partial.replace(path)
