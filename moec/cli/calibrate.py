"""`moec calibrate`: what the numbers of a hardware project are worth, and the error that they make."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from moec.fixed.scales import Calibration


def command(
    project: Annotated[Path, typer.Argument(help="The folder that `moec compile --target hls:… -o` wrote.")],
    weights: Annotated[Path, typer.Option("--weights", help="The layer's weights: .safetensors or .npz.")],
    samples: Annotated[Path, typer.Option("--samples", help="Its input: .npy, or .npz with the inputs by name.")],
    check: Annotated[Path | None, typer.Option("--check", help="Other samples, to measure the error on.")] = None,
    prefix: Annotated[str, typer.Option("--prefix", help="What stands before the weights' names in the file.")] = "",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write; by default calibration.json in the project.")
    ] = None,
    memory: Annotated[
        Path | None, typer.Option("--memory", help="Also write what a board's memory holds: a .npy of words a port.")
    ] = None,
) -> None:
    """Choose the scales of a layer in fixed-point arithmetic from samples, and measure it against float64."""
    import io

    import numpy as np

    from moec.artifact import hls
    from moec.cli.console import error_console, output_console
    from moec.fixed.calibrate import calibrate
    from moec.fixed.convert import convert
    from moec.fixed.packing import pack
    from moec.fixed.scales import CALIBRATION
    from moec.fixed.values import gather
    from moec.runtime.hls.tensors import read_samples, read_weights
    from moec.writing import require_other, write_bytes, write_text

    path = output or project / CALIBRATION
    for written in (path, memory):
        if written is not None:
            require_other(written, weights, samples, check)
    made = hls.read(project).project
    layer = made.design.layer
    values = gather(layer, made.interface, read_weights(weights, made.parameters, prefix))
    given = read_samples(samples, made.inputs)
    other = None if check is None else read_samples(check, made.inputs)
    found = calibrate(layer, values, given.x, given.tasks, None if other is None else (other.x, other.tasks))
    write_text(path, found.to_json())
    if memory is not None:
        words = io.BytesIO()
        np.save(words, pack(made.design, convert(layer, values, found.scales)), allow_pickle=False)
        write_bytes(memory, words.getbuffer())
    output_console().print(_table(found))
    error_console().print(f"wrote {path}", markup=False, highlight=False, soft_wrap=True)


def _table(found: Calibration) -> Table:
    from rich.table import Table

    measured = [("samples", found.error)] + ([("other samples", found.checked)] if found.checked is not None else [])
    table = Table(
        "", *(name for name, _ in measured), title=f"{found.scales.layer} against float64", title_justify="left"
    )
    rows = [
        ("tokens", "tokens", "{:,}"),
        ("relative error", "relative", "{:.3%}"),
        ("… of tokens with the same experts", "agreeing", "{:.3%}"),
        ("tokens with the same experts", "experts", "{:.2%}"),
        ("largest error, of the root mean square", "largest", "{:.3f}"),
        ("inputs beyond their codes", "clamped_x", "{:.4%}"),
        ("results at the end of their codes", "clamped_y", "{:.4%}"),
    ]
    for title, name, form in rows:
        table.add_row(title, *(form.format(getattr(error, name)) for _, error in measured))
    return table
