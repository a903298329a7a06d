"""Reads how often each expert was chosen, from a file beside the layer's: a JSON array, or a trace."""

from __future__ import annotations

import json
from math import isfinite
from pathlib import Path

from moec.diagnostics import Source, Span
from moec.frontend import ast
from moec.frontend.files import Unreadable, read_text
from moec.frontend.mistake import Mistake
from moec.frontend.traces import SUFFIX, beside, read_trace


def read_counts(path: ast.String, folder: Path | None, experts: int) -> tuple[list[float], Source]:
    """The counts of `experts` experts, and the file.  Raises Mistake for everything that is no such file."""
    if path.value.endswith(SUFFIX):
        return _of_trace(path, folder, experts)
    place = beside(path, folder, ".json")
    if place is None:
        raise _mistake(
            path.span,
            f"`{path.value}` is not a path of counts",
            notes=["a path is relative to this file, ends in `.json` or `.trace`, and parts are separated by `/`"],
        )
    try:
        source = Source(str(place), read_text(place))
    except Unreadable as why:
        raise _mistake(path.span, f"cannot read `{place}`: {why}", fix=why.fix) from None
    try:
        counts = json.loads(source.text)
    except json.JSONDecodeError as why:
        where = f"line {why.lineno}, column {why.colno}: {why.msg}"
        raise _mistake(path.span, f"`{path.value}` is not JSON", notes=[where]) from None
    except (ValueError, RecursionError):
        raise _mistake(path.span, f"`{path.value}` is not JSON that can be read") from None
    if not isinstance(counts, list) or len(counts) != experts:
        have = f"an array of {len(counts):,}" if isinstance(counts, list) else "no array"
        raise _mistake(
            path.span, f"`{path.value}` must hold one number for each of {experts:,} experts", f"it is {have}"
        )
    for number, count in enumerate(counts):
        if not _is_count(count):
            said = json.dumps(count)
            shown = said if len(said) <= 20 else said[:20] + "..."
            raise _mistake(path.span, f"`{path.value}` holds what is no count", f"element {number} is {shown}")
    return [float(count) for count in counts], source


def _of_trace(path: ast.String, folder: Path | None, experts: int) -> tuple[list[float], Source]:
    summary, source = read_trace(path, folder, "E0422")
    if len(summary.counts) != experts:
        said = f"`{path.value}` must be a trace of {experts:,} experts"
        raise _mistake(path.span, said, f"it has {len(summary.counts):,}", fix="record one of this layer")
    return [float(count) for count in summary.counts], source


def coldest(counts: list[float], number: int) -> tuple[int, ...]:
    """The experts that were chosen least often, in ascending order; of equal ones the higher number is colder."""
    order = sorted(range(len(counts)), key=lambda expert: (counts[expert], -expert))
    return tuple(sorted(order[:number]))


def _is_count(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 <= value < 2**63 and isfinite(value)


def _mistake(span: Span, message: str, label: str = "", notes: list[str] | None = None, fix: str = "") -> Mistake:
    hint = fix or "write a JSON array such as [120, 3, 0, 57]: how often each expert was chosen"
    return Mistake("E0422", message, span, label, notes=notes or (), fix=hint)
