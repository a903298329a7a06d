"""`moec fmt`: writes `.moe` files in the one form."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from moec.errors import MoecError


def command(
    file: Annotated[list[Path], typer.Argument(help="The .moe files to format.")],
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit with 1 if a file is not formatted.")
    ] = False,
) -> None:
    """Format files in place; comments and line breaks stay."""
    from moec.frontend.files import read_source
    from moec.frontend.format import format_source
    from moec.writing import replace_file

    unformatted = 0
    for path in file:
        if not check and path.exists() and not path.is_file() and not path.is_dir():
            raise MoecError(
                f"`{path}` is no ordinary file, and cannot be formatted in place; `moec fmt --check` reads it"
            )
        source = read_source(path)
        formatted = format_source(source)
        if formatted == source.text:
            continue
        unformatted += 1
        if not check:
            replace_file(path.resolve(), formatted.encode(), keep_mode=True)
        typer.echo(f"{'would reformat' if check else 'reformatted'} {path}", err=True)
    if check and unformatted:
        raise typer.Exit(1)
