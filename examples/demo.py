"""`make demo`: compile OLMoE-1B-7B's MoE layer, run it through PyTorch, check it, time it.

Weights are random in their real shapes. The reference is float64 PyTorch, written apart from the compiler.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

import moec
from bench import console as tables
from bench import machine
from bench.cell import Cell
from bench.layer import TORCH_DTYPE, Layer, relative_error
from bench.limits import Prober
from bench.measure import QUICK, measure_cell
from bench.routes import ROUTES, Run
from bench.routes.moec_layer import state_dict
from bench.shapes import SHAPES, Shape

FULL_SIZE_MEMORY = 8 * 2**30
TOKENS = (1, 16, 128, 512)
PEERS = ("loop", "grouped_mm")
TOLERANCE = {"f32": 1e-5, "bf16": 2e-2}
STAGES = 4
"""About how many stages a compilation has; the bar is full when it ends, however many there are."""


def choose_size(console: Console) -> Shape:
    """OLMoE in full, or an eighth of it where memory is short."""
    shape = SHAPES["olmoe"]
    free = machine.available_bytes()
    if free >= FULL_SIZE_MEMORY:
        return shape
    console.print(
        f"[yellow]Only {free / 2**30:.1f} GiB of memory are free: experts are 128 wide instead of {shape.ff}."
    )
    return replace(shape, ff=128, defines=(("ff", 128),))


def compile_layer(shape: Shape, dtype: str, output: Path, console: Console) -> Path:
    """`moec.compile` with a bar that moves from stage to stage."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(30), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(f"compiling {shape.path.name}", total=STAGES)

        def observe(stage: str, seconds: float) -> None:
            progress.update(task, description=f"compiling {shape.path.name}: {stage}", advance=1 if seconds else 0)

        artifact = moec.compile(shape.path, output, defines={**dict(shape.defines), "dtype": dtype}, observe=observe)
        progress.update(task, description=f"compiled {shape.path.name}", completed=STAGES)
    return artifact


def check(layer: Layer, dtype: str, module: Run, console: Console) -> bool:
    """Compare with the float64 reference under even and skewed routing, one token and many."""
    right = True
    for routing in ("uniform", "zipf"):
        for tokens in (1, 100):
            (x,) = layer.inputs(tokens, 1, routing, seed=7)
            error = relative_error(module(x.to(TORCH_DTYPE[dtype])), layer.reference(x))
            good = error <= TOLERANCE[dtype]
            right &= good
            mark = "[green]✓[/green]" if good else "[red]✗ wrong[/red]"
            console.print(
                f"  {mark} {tokens:4d} tokens, {routing:7s} routing: relative error {error:.1e}", highlight=False
            )
    return right


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dtype", choices=("bf16", "f32"), default="bf16")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--tokens", type=int, nargs="+", default=list(TOKENS), metavar="T")
    parser.add_argument("--output", type=Path, default=Path("build/olmoe.so"), help="where the artifact goes")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    console = Console()
    shape, dtype = choose_size(console), options.dtype

    options.output.parent.mkdir(parents=True, exist_ok=True)
    artifact = compile_layer(shape, dtype, options.output, console)
    console.print(f"  {artifact}: {artifact.stat().st_size / 1024:.0f} KiB, {shape.experts} experts, top {shape.top_k}")

    with console.status("random weights in their real shapes"):
        layer = Layer(shape)
    with console.status("packing them into the order of the kernels"):
        module = moec.load(artifact)
        module.load_state_dict(state_dict(layer, dtype))
    console.print("\nChecked against float64:")
    if not check(layer, dtype, module, console):
        console.print("[red]The layer does not compute what it should.")
        return 1

    with console.status("what this machine can do at best"):
        prober = Prober(options.threads)
        limits = prober.thorough()
    console.print(f"\n{machine.processor()}, variant {module.variant}", highlight=False)
    console.print(tables.limits_line(limits, prober.measured_by, options.threads), highlight=False)
    routes: dict[str, Run] = {"moec": module, **{name: ROUTES[name].build(layer, dtype) for name in PEERS}}
    cells: list[Cell] = []
    with console.status("timing") as status:
        for tokens in options.tokens:
            status.update(f"timing {tokens} tokens")
            cells.append(measure_cell(layer, dtype, "uniform", tokens, routes, prober, QUICK))
    console.print(tables.table(cells, f"\nOLMoE-1B-7B's MoE layer, {dtype}, {options.threads} threads"))
    console.print(
        "\nlimit: the longer of FLOP / measured peak and bytes of the experts touched / measured memory bandwidth.\n"
        f"Next: [bold]moec inspect {artifact}[/bold] · [bold]make bench[/bold] (Hugging Face's blocks, more layers)",
        highlight=False,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
