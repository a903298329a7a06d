"""`moec fmt`: writes `.moe` files in the one form."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moec.errors import DiagnosticError

if TYPE_CHECKING:
    from moec.diagnostics import Diagnostic


def command(
    file: Annotated[list[Path], typer.Argument(help="The .moe files to format.")],
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit with 1 if a file is not formatted.")
    ] = False,
) -> None:
    """Format files in place; comments and line breaks stay."""
    unformatted = 0
    wrong: list[Diagnostic] = []
    for path in file:
        try:
            changed = _format(path, check)
        except DiagnosticError as error:  # the others are files of their own
            wrong.extend(error.diagnostics)
            continue
        if changed:
            unformatted += 1
            typer.echo(f"{'would reformat' if check else 'reformatted'} {path}", err=True)
    if wrong:
        raise DiagnosticError(wrong)
    if check and unformatted:
        raise typer.Exit(1)


def _format(path: Path, check: bool) -> bool:
    """Whether the file is not, or was not, in the one form."""
    from moec.diagnostics import Diagnostic, Fix, Severity
    from moec.frontend.files import read_source
    from moec.frontend.format import format_source
    from moec.writing import replace_file

    if not check and path.exists() and not path.is_file() and not path.is_dir():
        message = f"cannot format `{path}` in place: it is no ordinary file"
        fix = Fix("`moec fmt --check` reads it")
        raise DiagnosticError([Diagnostic("E0108", Severity.ERROR, message, (), (), fix)])
    source = read_source(path)
    formatted = format_source(source)
    if formatted == source.text:
        return False
    if not check:
        replace_file(path.resolve(), formatted.encode(), keep_mode=True)
    return True
