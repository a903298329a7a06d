"""`moec compile`: from a `.moe` file to an artifact, or to the text of a stage on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moec.cli.console import error_console
from moec.writing import require_other, write_text

if TYPE_CHECKING:
    from moec.pipeline import Compilation, Observer


def command(
    file: Annotated[Path, typer.Argument(help="A .moe file, or IR (.mlir) at graph or kernel level.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write; by default FILE with the suffix .so.")
    ] = None,
    layer: Annotated[str | None, typer.Option(help="Which layer, where the file holds several.")] = None,
    define: Annotated[
        list[str] | None, typer.Option("--define", "-D", metavar="NAME=VALUE", help="Set a parameter of the layer.")
    ] = None,
    layout: Annotated[str | None, typer.Option(help="Which layout of the layer, where it has several.")] = None,
    target: Annotated[
        str,
        typer.Option(help="What to compile for: cpu, cuda:ARCH,... (sm_80, sm_90a, sm_100a), or a board: hls:zcu102."),
    ] = "cpu",
    emit: Annotated[
        str | None, typer.Option(metavar="STAGE", help="Print a stage instead: graph, kernels, cpu, llvm, cuda.")
    ] = None,
    passes: Annotated[
        list[str] | None, typer.Option("--pass", metavar="PASS", help="Run these passes instead of the default ones.")
    ] = None,
    training: Annotated[bool, typer.Option("--training", help="Also compile what trains the layer.")] = False,
    variants: Annotated[
        bool, typer.Option("--variants", help="Also compile ahead what the layer's layout allows it to become.")
    ] = False,
    machine: Annotated[
        Path | None,
        typer.Option(help="A file of measured figures, by which the schedule of a layer on a mesh is chosen."),
    ] = None,
    remarks: Annotated[bool, typer.Option("--remarks", help="Say what every pass decided and why.")] = False,
    timing: Annotated[bool, typer.Option("--timing", help="Say how long every stage and pass took.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no summary.")] = False,
) -> None:
    """Compile a layer to one file that PyTorch calls, or to a project that makes hardware of it."""
    from moec.cli.defines import parse_defines
    from moec.diagnostics import render_text
    from moec.pipeline import Compilation

    seconds: dict[str, float] = {}
    with _progress(seconds, shown=not quiet and emit is None) as observe:
        defines = parse_defines(define or [])
        compilation = Compilation(file, layer, defines, target, passes, observe, training, layout, variants, machine)
        if emit is not None:
            if output is not None:
                require_other(output, file, machine)
            _write_text(compilation.emit(emit), output)
        else:
            path = output or compilation.default_output
            compilation.write(path)
    if not quiet and compilation.warnings:
        typer.echo(render_text(compilation.warnings, color=error_console().is_terminal) + "\n", err=True, color=True)
    if not quiet and emit is None:
        said = f"wrote {path}: {_size(path)} in {sum(seconds.values()):.2f} s"
        error_console().print(said, markup=False, highlight=False, soft_wrap=True)
    if remarks:
        _print_remarks(compilation)
    if timing:
        _print_timing(compilation, seconds)


def _size(path: Path) -> str:
    if path.is_dir():
        return f"{sum(one.is_file() for one in path.rglob('*')):,} files"
    return f"{path.stat().st_size:,} bytes"


def _write_text(text: str, output: Path | None) -> None:
    if output is None:
        typer.echo(text, nl=not text.endswith("\n"))
    else:
        write_text(output, text)


@contextmanager
def _progress(seconds: dict[str, float], shown: bool) -> Iterator[Observer]:
    """An observer that notes how long stages take and, on a terminal, shows which one runs."""
    console = error_console()
    status = console.status("") if shown and console.is_terminal else None

    def observe(stage: str, took: float) -> None:
        seconds[stage] = seconds.get(stage, 0.0) + took
        if status is not None:
            status.update(f"{stage} ...")

    if status is None:
        yield observe
        return
    with status:
        yield observe


def _print_remarks(compilation: Compilation) -> None:
    for remark in compilation.report.remarks.entries:
        typer.echo(f"remark: {remark}", err=True)


def _print_timing(compilation: Compilation, seconds: dict[str, float]) -> None:
    line: Callable[[str, float], None] = lambda name, took: typer.echo(f"{took * 1e3:9.1f} ms  {name}", err=True)  # noqa: E731
    for stage, took in seconds.items():
        line(stage, took)
        if stage == "kernels":
            for name, pass_took in compilation.report.seconds:
                line(f"  {name}", pass_took)
