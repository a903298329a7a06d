"""`moec explain`: the long story of a diagnostic's code."""

from __future__ import annotations

from typing import Annotated

import typer


def command(
    code: Annotated[str | None, typer.Argument(help="A code such as E0301; without one, all are listed.")] = None,
) -> None:
    """Explain an error or a warning: what it means, an example, how to repair it."""
    from rich.markdown import Markdown

    from moec.cli.console import output_console
    from moec.diagnostics import codes, explanation
    from moec.diagnostics.explanations import title

    if code is None:
        for one in codes():
            typer.echo(f"{one}  {title(one)}")
        return
    text = explanation(code)
    if text is None:
        from moec.diagnostics import closest

        near = closest(code.upper(), codes())
        hint = f"did you mean {near}?" if near else "`moec explain` lists them all"
        typer.echo(f"error: there is no code {code!r}; {hint}", err=True)
        raise typer.Exit(1)
    console = output_console()
    if console.is_terminal:
        console.print(Markdown(text))
    else:
        typer.echo(text, nl=False)
