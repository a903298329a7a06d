"""`moec report`: a page about what an adapting layer met and did."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from moec.errors import JournalError


def command(
    journal: Annotated[Path, typer.Argument(help="A journal that layer.adapt() or follow(layers) wrote.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write; by default JOURNAL with the suffix .html.")
    ] = None,
) -> None:
    """Write a page about an adaptation: load over time, variants, decisions and why, gains. It needs no other file."""
    from moec.cli.console import error_console
    from moec.cli.page.document import page
    from moec.cli.page.timeline import Timeline
    from moec.journal import Reading
    from moec.writing import require_other, write_text

    if journal.is_dir():
        raise JournalError(f"{journal} is a folder: give the journal in it")
    reading = Reading(journal)
    timeline = Timeline.of(reading)
    if not reading.records:
        raise JournalError(f"{journal} is no journal of an adapting layer: it has no record")
    path = output or journal.with_suffix(".html")
    require_other(path, journal)
    text = page(timeline, reading)
    write_text(path, text)
    error_console().print(f"wrote {path}: {len(text.encode()):,} bytes", markup=False, highlight=False, soft_wrap=True)
