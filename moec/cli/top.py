"""`moec top`: the layers that adapt on this machine, live."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from moec.cli.terminal.watched import Fleet

_QUIT = frozenset("qQ\x03\x04")


def command(
    targets: Annotated[
        list[str] | None,
        typer.Argument(metavar="[JOURNAL|PID]...", help="Journals or processes; by default all layers that adapt now."),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Print the state once, and end.")] = False,
    interval: Annotated[float, typer.Option(min=0.1, max=3600.0, help="Seconds between two looks.")] = 1.0,
) -> None:
    """Watch layers follow their load: load per expert, variants, guards, decisions and why.

    Where the output is no terminal, the state is printed once.
    """
    from moec.cli.console import output_console
    from moec.cli.terminal.watched import Fleet

    console = output_console()
    fleet = Fleet(targets or ())
    try:
        if once or not console.is_terminal:
            _print(fleet, console)
        else:
            _watch(fleet, console, interval)
    finally:
        fleet.close()


def _print(fleet: Fleet, console: Console) -> None:
    """Every layer in full, below each other."""
    import time

    from moec.cli.terminal.screen import picture

    for number, one in enumerate(fleet.watched):
        if number:
            console.print()
        for line in picture([one], 0, time.time(), console.width, None):
            line.rstrip()
            console.print(line, soft_wrap=True)


def _watch(fleet: Fleet, console: Console, interval: float) -> None:
    import time

    from rich.console import Group
    from rich.live import Live

    from moec.cli.terminal.keyboard import Keyboard
    from moec.cli.terminal.screen import picture

    chosen = 0
    with Keyboard() as keyboard, Live(console=console, screen=True, auto_refresh=False) as live:
        try:
            while True:
                path = fleet.watched[chosen].path
                fleet.refresh(time.monotonic())
                chosen = next(place for place, one in enumerate(fleet.watched) if one.path == path)
                lines = picture(fleet.watched, chosen, time.time(), console.width, console.height)
                live.update(Group(*lines), refresh=True)
                key = keyboard.wait(interval)
                if key in _QUIT:
                    return
                chosen = (chosen + {"up": -1, "down": 1}.get(key or "", 0)) % len(fleet.watched)
        except KeyboardInterrupt:
            return
