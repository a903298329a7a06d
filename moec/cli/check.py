"""`moec check`: everything that is to be said about a `.moe` file, without compiling it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    file: Annotated[Path, typer.Argument(help="A .moe file.")],
    layer: Annotated[str | None, typer.Option(help="Check this layer only; by default all.")] = None,
    define: Annotated[
        list[str] | None, typer.Option("--define", "-D", metavar="NAME=VALUE", help="Set a parameter of the layer.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the diagnostics as JSON, to standard output.")] = False,
) -> None:
    """Check a file: names, shapes, dtypes, numbers. Exits with 1 if there are errors."""
    from moec.cli.console import error_console
    from moec.cli.defines import parse_defines
    from moec.diagnostics import Severity, render_json, render_text
    from moec.frontend import check_file

    found = check_file(file, layer, parse_defines(define or []))
    errors = sum(one.severity is Severity.ERROR for one in found)
    if json:
        typer.echo(render_json(found))
    else:
        if found:
            typer.echo(render_text(found, color=error_console().is_terminal), err=True, color=True)
            typer.echo("", err=True)
        warnings = len(found) - errors
        counts = [_count(errors, "error"), _count(warnings, "warning")]
        said = " and ".join(one for one in counts if one) or "no errors"
        more = f"; `moec explain {found[0].code}` says more" if found else ""
        typer.echo(f"{file}: {said}{more}", err=True)
    if errors:
        raise typer.Exit(1)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}" if number else ""
