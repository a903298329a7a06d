"""`moec` and `python -m moec`."""

from __future__ import annotations

import signal
import sys
from importlib.util import find_spec
from types import FrameType
from typing import NoReturn

COMMAND_PARTS = ("typer", "rich")


def _end(number: int, _: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


def main() -> None:
    for one in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(one) is signal.SIG_DFL:  # not under `nohup`
            signal.signal(one, _end)  # temporary files and the terminal are put in order
    missing = [name for name in COMMAND_PARTS if find_spec(name) is None]
    if missing:
        extras = "pip install 'moec[compiler]', or 'moec[cli]' where nothing is compiled"
        sys.exit(f"The moec command needs {' and '.join(missing)}: {extras}")
    try:
        from moec.cli.app import app

        app(prog_name="moec")
    except KeyboardInterrupt:  # while modules are imported; later ones `app` answers
        _end(signal.SIGINT, None)


if __name__ == "__main__":
    main()
