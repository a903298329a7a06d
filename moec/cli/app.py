"""The table of commands, looked up when one is called, and what happens to errors on their way out."""

from __future__ import annotations

import errno
from importlib import import_module
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from moec.cli.console import error_console
from moec.errors import DiagnosticError, MoecError

# Modules of moec.cli, in the order of `moec --help`.
COMMANDS = (
    "compile",
    "check",
    "fmt",
    "explain",
    "opt",
    "plan",
    "graph",
    "inspect",
    "calibrate",
    "trace",
    "top",
    "report",
    "doctor",
)

BUG = (
    "This is a bug in moec: please report it with this traceback, the file you compiled, and what `moec doctor` prints."
)
INTERRUPTED = 130  # what a shell reports for a program ended by Ctrl-C
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What writing fails with where nothing is wrong with moec."""


class CommandTable(TyperGroup):
    """Imports a command's module when that command is asked for, and no other."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, name: str) -> Any:
        if name not in COMMANDS:
            return None
        single = typer.Typer(add_completion=False)
        single.command(name=name)(import_module(f"moec.cli.{name}").command)
        return typer.main.get_command(single)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            from moec.diagnostics import closest

            near = closest(name, COMMANDS)
            ctx.fail(f"No such command '{name}'." + (f" Did you mean '{near}'?" if near else ""))
        return super().resolve_command(ctx, args)

    def make_context(self, *given: Any, **more: Any) -> Any:
        try:
            return super().make_context(*given, **more)
        except OSError as error:  # of `moec --help`
            _fail_to_write(error)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except DiagnosticError as error:
            _fail(str(error))
        except MoecError as error:
            _fail(f"error: {error}")
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except OSError as error:
            if error.filename is None:
                _fail_to_write(error)
            _fail(f"error: {error.filename}: {error.strerror}")
        except KeyboardInterrupt:
            _fail("interrupted", INTERRUPTED)
        except Exception as bug:
            if type(bug).__module__.partition(".")[0] not in ("typer", "click"):  # a usage error is no bug
                bug.add_note(BUG)
            raise


def _fail_to_write(error: OSError) -> NoReturn:
    """End for an error of standard output; others are raised as they are."""
    if error.errno not in FULL:
        raise error
    _fail(f"error: what this command prints cannot be written: {error.strerror}")


def _fail(message: str, code: int = 1) -> NoReturn:
    error_console().print(message, markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(code) from None


app = typer.Typer(
    cls=CommandTable,
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # plain tracebacks: whole, copyable, without the values of locals
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"moec {version('moec')}")
        raise typer.Exit


@app.callback()
def moec(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print moec's version.")
    ] = False,
) -> None:
    """Compile Mixture-of-Experts layers ahead of time.

    [bold]moec compile layer.moe -o layer.so[/bold] writes one file that PyTorch calls: moec.load("layer.so").
    """
