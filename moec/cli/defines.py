"""`-D name=value`, as commands take it."""

from __future__ import annotations

from collections.abc import Iterable

import typer


def parse_defines(given: Iterable[str]) -> dict[str, str]:
    """`["ff=256"]` to `{"ff": "256"}`.  Raises typer.BadParameter for what has no `=`, or a name twice."""
    defines: dict[str, str] = {}
    for one in given:
        name, equals, value = one.partition("=")
        name, value = name.strip(), value.strip()
        if not equals or not name or not value:
            raise typer.BadParameter(f"{one!r} is not of the form NAME=VALUE", param_hint="-D")
        if name in defines:
            raise typer.BadParameter(f"{name!r} is given twice", param_hint="-D")
        defines[name] = value
    return defines
