"""`python -m bench`: tables and JSON of moec beside PyTorch's routes and the machine's limits."""

from __future__ import annotations

import argparse
import gc
import json
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from bench import costs, machine, report
from bench.layer import Layer
from bench.limits import Limits, Prober
from bench.measure import QUICK, Cell, Plan, measure_cell
from bench.routes import ROUTES, Run, Unavailable
from bench.shapes import DTYPES, ROUTINGS, SHAPES, TOKENS


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--tokens", nargs="+", type=int, default=list(TOKENS), metavar="T")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--routing", nargs="+", choices=ROUTINGS, default=["uniform"])
    parser.add_argument("--routes", nargs="+", choices=ROUTES, help="default: all but the torch.compile ones")
    parser.add_argument("--compiled", action="store_true", help="also the routes under torch.compile")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=Plan.rounds)
    parser.add_argument("--quick", action="store_true", help="OLMoE and Qwen3, fewer and shorter rounds")
    parser.add_argument("--all", action="store_true", help="print every route's time, not only the best peer's")
    parser.add_argument("--limits", action="store_true", help="measure the machine's limits and stop")
    parser.add_argument("--costs", action="store_true", help="measure compiling, packing, memory and calls, and stop")
    parser.add_argument("--out", type=Path, default=Path("bench/results/latest.json"), help="where the JSON goes")
    options = parser.parse_args()
    if options.quick:
        options.shapes = [name for name in options.shapes if name in ("olmoe", "qwen3")]
    return options


def build_routes(names: Sequence[str], layer: Layer, dtype: str, skipped: dict[str, str]) -> dict[str, Run]:
    """The routes that can run here; the others go into `skipped` with the reason."""
    built = {}
    for name in names:
        try:
            built[name] = ROUTES[name].build(layer, dtype)
        except Unavailable as why:
            skipped[f"{layer.shape.name} {dtype} {name}"] = str(why)
    return built


def write(path: Path, limits: Limits, prober: Prober, cells: Sequence[Cell], skipped: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    result = {
        "machine": machine.describe(),
        "threads": prober.threads,
        "limits": report.limits_json(limits) | {"measured_by": prober.measured_by},
        "cells": [report.as_json(cell) for cell in cells],
        "skipped": skipped,
    }
    path.write_text(json.dumps(result, indent=1) + "\n")


def _first_of_each(skipped: dict[str, str]) -> dict[str, str]:
    """One entry a layer, dtype and route: the first cell that was skipped stands for the larger ones."""
    first: dict[str, tuple[str, str]] = {}
    for what, why in skipped.items():
        first.setdefault(what.partition(" from T=")[0], (what, why))
    return dict(first.values())


def report_costs(options: argparse.Namespace, console: Console) -> None:
    """Everything but the time of a layer's arithmetic."""
    overhead = costs.call_overhead()
    console.print(
        "One call, one token, a tiny layer: " + ", ".join(f"{n} {s * 1e6:.1f} µs" for n, s in overhead.items())
    )
    measured = []
    with console.status("") as status:
        for name in options.shapes:
            for dtype in options.dtypes:
                status.update(f"{name} {dtype}")
                measured.append(costs.layer_costs(SHAPES[name], dtype, options.tokens, options.threads))
    console.print(costs.costs_table(measured))
    console.print("KiB: artifact · packed: packed / ordinary weights · T=…: working memory / permuted rows of T tokens")
    path = options.out.with_name("costs.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    result = {"machine": machine.describe(), "threads": options.threads} | costs.costs_json(measured, overhead)
    path.write_text(json.dumps(result, indent=1) + "\n")
    console.print(f"Written: {path}")


def main() -> None:
    options = parse_arguments()
    torch.set_num_threads(options.threads)
    console = Console()
    if options.costs:
        report_costs(options, console)
        return
    prober = Prober(options.threads)
    limits = prober.thorough()
    console.print(f"{machine.processor()}, " + ", ".join(f"{k} {v}" for k, v in machine.versions().items()))
    console.print(report.limits_line(limits, prober.measured_by, options.threads), highlight=False)
    if options.limits:
        return
    plan = Plan(QUICK.rounds, QUICK.turn_seconds) if options.quick else Plan(options.rounds)
    names = options.routes or [n for n, route in ROUTES.items() if route.by_default or options.compiled]
    cells: list[Cell] = []
    skipped: dict[str, str] = {}
    progress = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )
    with progress:
        total = len(options.shapes) * len(options.dtypes) * len(options.routing) * len(options.tokens)
        task = progress.add_task("", total=total)
        for name in options.shapes:
            progress.update(task, description=f"{name}: making weights")
            layer = Layer(SHAPES[name])
            for dtype in options.dtypes:
                progress.update(task, description=f"{name} {dtype}: building the routes")
                routes = build_routes(names, layer, dtype, skipped)
                for routing in options.routing:
                    rows = []
                    for tokens in options.tokens:
                        progress.update(task, description=f"{name} {dtype} {routing} T={tokens}")
                        rows.append(measure_cell(layer, dtype, routing, tokens, routes, prober, plan))
                        progress.advance(task)
                    cells += rows
                    style = report.full_table if options.all else report.table
                    console.print(style(rows, f"\n{name}, {dtype}, {routing} routing"))
                    write(options.out, limits, prober, cells, skipped)
                del routes
                gc.collect()
    for cell in cells:
        for name, why in cell.skipped.items():
            skipped.setdefault(f"{cell.shape} {cell.dtype} {name} from T={cell.tokens}", why)
    for what, why in _first_of_each(skipped).items():
        console.print(f"skipped {what}: {why}", style="dim", markup=False)
    console.print(f"Written: {options.out}")


if __name__ == "__main__":
    main()
