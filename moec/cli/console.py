"""Where commands print: tables and results to standard output, errors and progress to standard error."""

from __future__ import annotations

from rich.console import Console


def output_console() -> Console:
    return Console()


def error_console() -> Console:
    return Console(stderr=True)
