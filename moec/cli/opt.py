"""`moec opt`: runs passes on a file of IR."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from moec.errors import MoecError
from moec.writing import write_text


def command(
    file: Annotated[Path | None, typer.Argument(help="IR (.mlir); standard input where it is left out.")] = None,
    passes: Annotated[
        list[str] | None,
        typer.Option("--pass", "-p", metavar="PASS", help="A pass and its options: NAME{OPTION=VALUE,...}."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write; else to standard output.")
    ] = None,
    default: Annotated[
        bool, typer.Option("--default", help="Run the default passes (before those of --pass).")
    ] = False,
    each: Annotated[
        bool, typer.Option("--print-each", help="Print the IR behind every pass, to standard error.")
    ] = False,
    remarks: Annotated[bool, typer.Option("--remarks", help="Say what every pass decided and why.")] = False,
    timing: Annotated[bool, typer.Option("--timing", help="Say how long every pass took.")] = False,
    list_: Annotated[bool, typer.Option("--list", help="List the passes and their options, and stop.")] = False,
) -> None:
    """Run passes on IR; it is verified behind each."""
    from torch_mlir import ir

    from moec import passes as registered
    from moec.dialect import context
    from moec.frontend.files import read_source
    from moec.pipeline import ir_text

    if list_:
        _print_passes()
        return
    name = str(file) if file else "standard input"
    module = ir_text.parse(read_source(file).text if file else _standard_input(), name, context())

    def after(done: registered.Pass, now: ir.Module) -> None:
        if each:
            typer.echo(f"// behind {done.name}\n{ir_text.show(now)}", err=True)

    specs = [*(registered.DEFAULT_PIPELINE if default else ()), *(passes or [])]
    report = registered.run(module, registered.parse_pipeline(specs), after)
    text = ir_text.show(module)
    if output is None:
        typer.echo(text, nl=False)
    else:
        write_text(output, text)
    if remarks:
        for remark in report.remarks.entries:
            typer.echo(f"remark: {remark}", err=True)
    if timing:
        for done, seconds in report.seconds:
            typer.echo(f"{seconds * 1e3:9.1f} ms  {done}", err=True)


def _standard_input() -> str:
    try:
        return sys.stdin.read()
    except UnicodeDecodeError:
        raise MoecError("standard input is not UTF-8 text: give IR, as `moec compile --emit=graph` prints it") from None


def _print_passes() -> None:
    import dataclasses

    from moec.passes.registry import PASSES, pass_class

    for name in PASSES:
        class_ = pass_class(name)
        options = [f"{field.name.replace('_', '-')}={field.default}" for field in dataclasses.fields(class_)]
        summary = (class_.__doc__ or "").strip().splitlines()[0]
        typer.echo(f"{name}{'{' + ','.join(options) + '}' if options else ''}\n    {summary}")
