"""`moec inspect` of a project's folder: what it says about itself, read and verified; nothing of it is executed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from json import dumps, loads
from pathlib import Path
from typing import Any

import typer
from rich.markup import escape
from rich.table import Table

from moec.artifact.hls import Folder, read
from moec.artifact.manifest import TOKENS
from moec.cli.console import output_console
from moec.cli.sizes import size
from moec.fixed.design import Design
from moec.fixed.model.kernel import resources
from moec.fixed.model.timing import Prediction, predict
from moec.fixed.model.traffic import even_counts
from moec.fixed.spec import Expert


def inspect_project(folder: Path, json: bool, ir: bool) -> None:
    """Print the description of a project as tables, or as JSON, or the IR in it."""
    project = read(folder)
    texts = {name: data.decode() for name, data in project.files.items() if name.startswith("ir/")}
    if json:
        typer.echo(dumps(_description(project) | ({"texts": texts} if ir else {}), indent=2))
    elif ir:
        for name, text in texts.items():
            typer.echo(f"// {name}\n{text.rstrip()}\n")
    else:
        console = output_console()
        for table in _tables(project):
            console.print(table)


def _description(folder: Folder) -> dict[str, Any]:
    design = folder.project.design
    return {
        "folder": {"path": folder.path, "sha256": folder.sha256},
        "manifest": loads(folder.project.to_json()),
        "modelled": {"seconds": _predicted(design).seconds, "kernel": asdict(resources(design))},
    }


def _tables(folder: Folder) -> Iterator[Table]:
    project, design = folder.project, folder.project.design
    layer, board = design.layer, design.board
    options = ", ".join(f"{name}={value}" for name, value in project.options.items())
    nbytes = sum(len(data) for data in folder.files.values())
    yield _rows(
        Table(title=escape(project.layer), title_justify="left", show_header=False),
        ("source", f"{project.source.name} (sha256 {project.source.sha256[:12]}…)"),
        ("options", options or "none"),
        ("compiled by", f"{project.compiler}, schema {project.schema}"),
        ("target", project.target),
        ("project", f"{len(folder.files)} files, {size(nbytes)}, sha256 {folder.sha256[:12]}… (verified)"),
    )
    yield _rows(
        Table("tensor", "shape", "dtype", title="Calls", title_justify="left"),
        *((t.name, _shape((TOKENS, *t.row)), t.dtype) for t in project.inputs),
        *((f"→ {t.name}", _shape((TOKENS, *t.row)), t.dtype) for t in project.outputs),
    )
    router = layer.router
    tasks = f", a gate for each of {router.tasks} tasks" if router.tasks > 1 else ""
    shared = f"{layer.shared} of {_expert(layer.common)}" if layer.common is not None else "none"
    yield _rows(
        Table(title="In fixed point", title_justify="left", show_header=False),
        ("tokens", f"{layer.width} numbers of {layer.rows} bits"),
        ("router", f"{router.slots} of {layer.experts} experts by {router.score.value}{tasks}"),
        ("experts", f"{_expert(layer.routed)}, {layer.weights.value} weights"),
        ("shared experts", shared),
        ("sums", project.guarantees.accumulation),
    )
    yield _rows(
        Table(title=f"On {escape(board.name)}", title_justify="left", show_header=False),
        ("part", f"{board.part}, asked to run at {board.clock / 1e6:g} MHz"),
        ("array", f"{design.inputs} x {design.outputs} multipliers"),
        ("weights come through", f"{design.ports} x {design.port_bits} bits, {design.order.value}-major"),
        ("tokens of a call", f"{design.tokens} at most"),
        ("memories", f"rows {design.rows_in}, queues {design.queues}, weights {design.weights_in}"),
        *_modelled(design),
    )


def _predicted(design: Design) -> Prediction:
    """A call of the most tokens, which are spread evenly over the experts."""
    return predict(design, even_counts(design.layer, design.tokens))


def _modelled(design: Design) -> list[tuple[str, str]]:
    call, taken = _predicted(design), resources(design)
    parts = [f"{getattr(taken, name):,g} of {getattr(design.board, name):,} {said}" for name, said in _BLOCKS]
    return [
        ("modelled", f"{call.seconds * 1e3:.4g} ms for {design.tokens} tokens, bound by the {call.bound}"),
        ("estimated to take", ", ".join(parts)),
    ]


_BLOCKS = (("dsp", "DSP blocks"), ("bram", "block RAMs"), ("uram", "UltraRAMs"), ("lut", "LUTs"))


def _expert(expert: Expert | None) -> str:
    return "" if expert is None else f"{'gated ' if expert.gated else ''}{expert.activation.value} of {expert.hidden}"


def _shape(shape: tuple[object, ...]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _rows(table: Table, *rows: tuple[str, ...]) -> Table:
    for row in rows:
        table.add_row(*map(escape, row))
    return table
