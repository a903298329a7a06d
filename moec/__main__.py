"""`moec` and `python -m moec`."""

from __future__ import annotations

import sys
from importlib.util import find_spec

COMPILER_PARTS = ("typer", "rich")


def main() -> None:
    missing = [name for name in COMPILER_PARTS if find_spec(name) is None]
    if missing:
        sys.exit(f"The moec command needs {' and '.join(missing)}: pip install 'moec[compiler]'")
    from moec.cli.app import app

    app(prog_name="moec")


if __name__ == "__main__":
    main()
