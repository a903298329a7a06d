"""Reads trace files that stand beside a `.moe` file."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from moec.diagnostics import Source
from moec.errors import TraceError
from moec.frontend import ast
from moec.frontend.mistake import Mistake
from moec.trace import Summary, summarise

SUFFIX = ".trace"


def beside(path: ast.String, folder: Path | None, suffix: str) -> Path | None:
    """Where a path in a file of `folder` leads; None unless it is relative and ends in `suffix`."""
    written = PurePosixPath(path.value)
    if folder is None or written.is_absolute() or written.suffix != suffix or "\\" in path.value:
        return None
    return folder / written


def read_trace(path: ast.String, folder: Path | None, code: str) -> tuple[Summary, Source]:
    """The sums of a trace, and a short trace that has the same ones.  Raises Mistake (`code`)."""
    place = beside(path, folder, SUFFIX)
    if place is None:
        raise Mistake(
            code,
            f"`{path.value}` is not the path of a trace",
            path.span,
            notes=[f"a path is relative to this file, ends in `{SUFFIX}`, and parts are separated by `/`"],
        )
    try:
        summary = summarise(place)
    except OSError as error:
        why = (error.strerror or "it cannot be opened").lower()
        raise Mistake(code, f"cannot read `{place}`: {why}", path.span, fix="check the path") from None
    except ValueError:
        raise Mistake(code, f"cannot read `{path.value}`: the path holds a null character", path.span) from None
    except TraceError as why:
        raise Mistake(code, f"`{path.value}` is no trace that can be read", path.span, str(why)) from None
    if not sum(summary.counts):
        raise Mistake(code, f"`{path.value}` holds no choices", path.span, "nothing can be seen from this trace")
    return summary, Source(str(place), summary.text())
