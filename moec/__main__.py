"""`moec` and `python -m moec`."""

from __future__ import annotations

import sys
from importlib.util import find_spec

COMMAND_PARTS = ("typer", "rich")


def main() -> None:
    missing = [name for name in COMMAND_PARTS if find_spec(name) is None]
    if missing:
        extras = "pip install 'moec[compiler]', or 'moec[cli]' where nothing is compiled"
        sys.exit(f"The moec command needs {' and '.join(missing)}: {extras}")
    from moec.cli.app import app

    app(prog_name="moec")


if __name__ == "__main__":
    main()
