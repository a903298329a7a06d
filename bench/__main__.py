"""`python -m bench`: measures moec beside its peers and the machine's limits; one file of results a group of cells."""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from bench import console as tables
from bench import costs, machine
from bench.formats import FORMATS, UNQUANTISED
from bench.groups import SUITE, Group
from bench.layer import Layer
from bench.limits import Prober
from bench.measure import QUICK, Plan
from bench.routes import ROUTES
from bench.run import Bench, measure, write
from bench.shapes import ROUTINGS, SHAPES, TOKENS

COSTS = "costs.json"
FILE_WIDTH = 160  # columns of what is printed into a file or a pipe


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    cells = parser.add_argument_group("cells")
    cells.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    cells.add_argument("--tokens", nargs="+", type=int, default=list(TOKENS), metavar="T")
    cells.add_argument("--formats", nargs="+", choices=FORMATS, default=list(UNQUANTISED), help="of experts' weights")
    cells.add_argument("--routing", nargs="+", choices=ROUTINGS, default=["uniform"])
    cells.add_argument("--training", action="store_true", help="forward and backward, gradients of x and all weights")
    cells.add_argument("--routes", nargs="+", choices=ROUTES, help="default: all but the torch.compile ones")
    cells.add_argument("--compiled", action="store_true", help="also the routes under torch.compile")
    cells.add_argument("--quick", action="store_true", help="OLMoE and Qwen3, fewer and shorter rounds")
    suite = parser.add_argument_group("the cells of docs/performance.md, instead of some of your own")
    suite.add_argument("--suite", nargs="*", metavar="GROUP", help="all groups, or those that match (`training-*`)")
    suite.add_argument("--list", action="store_true", help="name the groups and stop")
    suite.add_argument("--again", action="store_true", help="measure groups too whose file is there already")
    how = parser.add_argument_group("how")
    how.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    how.add_argument("--rounds", type=int, help="default: 7, in the suite 3 to 5")
    how.add_argument("--priority", choices=machine.PRIORITIES, default="normal", help="of the timed parts")
    how.add_argument("--lock", type=Path, help="a file that others lock too, so that one at a time is timed")
    how.add_argument("--all", action="store_true", help="print every route's time, not only the best peer's")
    how.add_argument("--out", type=Path, default=Path("bench/results/latest"), help="folder for the JSON files")
    other = parser.add_argument_group("instead of cells")
    other.add_argument("--limits", action="store_true", help="measure the machine's limits and stop")
    other.add_argument("--costs", action="store_true", help="measure compiling, packing, memory and calls, and stop")
    return parser.parse_args()


def chosen(options: argparse.Namespace) -> list[Group]:
    """What was asked for, without the groups of the suite that are measured already."""
    if options.suite is not None or options.list:
        patterns = options.suite or ["*"]
        return [
            replace(group, rounds=options.rounds or group.rounds)
            for group in SUITE
            if any(fnmatch(group.name, pattern) for pattern in patterns)
            and (options.again or options.list or not (options.out / f"{group.name}.json").exists())
        ]
    return [
        Group(
            section="training" if options.training else "quantised" if FORMATS[format].quantised else "inference",
            shape=shape,
            format=format,
            mode="training" if options.training else "inference",
            routings=tuple(options.routing),
            tokens=tuple(options.tokens),
            routes=tuple(options.routes or ()),
            rounds=options.rounds or (QUICK.rounds if options.quick else Plan.rounds),
            turn_seconds=QUICK.turn_seconds if options.quick else Plan.turn_seconds,
        )
        for shape in options.shapes
        if not options.quick or shape in ("olmoe", "qwen3")
        for format in options.formats
    ]


def report_costs(options: argparse.Namespace, console: Console) -> None:
    """Everything but the time of a layer's arithmetic."""
    overhead = costs.call_overhead()
    console.print(
        "One call, one token, a tiny layer: " + ", ".join(f"{n} {s * 1e6:.1f} µs" for n, s in overhead.items())
    )
    measured = []
    with console.status("") as status:
        for name in options.shapes:
            for format in UNQUANTISED:
                status.update(f"{name} {format}")
                measured.append(costs.layer_costs(SHAPES[name], format, options.tokens, options.threads))
    console.print(costs.costs_table(measured))
    console.print("KiB: artifact · packed: packed / ordinary weights · T=…: working memory / permuted rows of T tokens")
    path = options.out / COSTS
    path.parent.mkdir(parents=True, exist_ok=True)
    result = {"machine": machine.describe(), "threads": options.threads} | costs.costs_json(measured, overhead)
    path.write_text(json.dumps(result, indent=1) + "\n")
    console.print(f"Written: {path}")


def measure_groups(wanted: list[Group], options: argparse.Namespace, console: Console) -> None:
    """Measure, print and write group after group; neighbours of one shape share its weights."""
    prober = Prober(options.threads)
    with machine.quiet(options.priority, options.lock):
        limits = prober.thorough()
    console.print(f"{machine.processor()}, " + ", ".join(f"{k} {v}" for k, v in machine.versions().items()))
    console.print(tables.limits_line(limits, prober.measured_by, options.threads), highlight=False)
    if options.limits:
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=sum(group.cells for group in wanted))
        bench = Bench(
            prober=prober,
            limits=limits,
            plan=Plan(priority=options.priority, lock=options.lock),
            compiled=options.compiled,
            say=lambda text, cells: progress.update(task, description=text, advance=cells),
        )
        layer: Layer | None = None
        for group in wanted:
            if layer is None or layer.shape.name != group.shape:
                bench.say(f"{group.shape}: making weights", 0)
                layer = None  # gone before the next one comes: gigabytes
                layer = Layer(SHAPES[group.shape])
            cells, skipped = measure(group, layer, bench)
            gc.collect()
            style = tables.full_table if options.all else tables.table
            for routing in group.routings:
                rows = [cell for cell in cells if cell.routing == routing]
                console.print(style(rows, f"\n{group.name}, {routing} routing"))
            for name, why in skipped.items():
                console.print(f"skipped {name}: {why}", style="dim", markup=False)
            path = options.out / f"{group.name}.json"
            write(path, group, cells, skipped, bench)
            console.print(f"Written: {path}", style="dim")


def main() -> None:
    options = parse_arguments()
    torch.set_num_threads(options.threads)
    console = Console(width=None if sys.stdout.isatty() else FILE_WIDTH)
    if options.costs:
        report_costs(options, console)
        return
    wanted = chosen(options)
    if options.list:
        for group in wanted:
            console.print(f"{group.name}: {group.cells} cells", highlight=False)
        return
    measure_groups(wanted, options, console)
    if options.suite is not None:
        if not options.suite and (options.again or not (options.out / COSTS).exists()):
            report_costs(options, console)
        console.print(f"Tables: python -m bench.report {options.out}/*.json", highlight=False)


if __name__ == "__main__":
    main()
