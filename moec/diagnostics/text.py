"""Diagnostics as text: the source line, carets under the place, notes, and the fix."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from moec.diagnostics.types import Diagnostic, Fix, Label, Severity, Source

WIDEST = 160
"""A source line is shown up to this many columns."""

_STYLES = {
    "error": "\x1b[1;31m",
    "warning": "\x1b[1;33m",
    "frame": "\x1b[1;34m",
    "fix": "\x1b[1;32m",
    "bold": "\x1b[1m",
}


class _Paint:
    def __init__(self, color: bool) -> None:
        self._color = color

    def __call__(self, text: str, style: str) -> str:
        return f"{_STYLES[style]}{text}\x1b[0m" if self._color and text else text


@dataclass(frozen=True)
class _Mark:
    """A label on one line, in display columns from 0; `end` is exclusive and at least one further."""

    start: int
    end: int
    text: str
    primary: bool


def render_text(diagnostics: Iterable[Diagnostic], color: bool = False) -> str:
    """All diagnostics, an empty line between two; no line end after the last."""
    return "\n\n".join(_one(diagnostic, _Paint(color)) for diagnostic in diagnostics)


def _one(diagnostic: Diagnostic, paint: _Paint) -> str:
    severity = diagnostic.severity
    message = _clean(diagnostic.message)
    lines = [paint(f"{severity.value}[{diagnostic.code}]", severity.value) + paint(f": {message}", "bold")]
    gutter = max((len(str(label.span.line)) for label in diagnostic.labels), default=1)
    primary = diagnostic.span.source if diagnostic.span else None
    sources = list(dict.fromkeys(label.span.source for label in diagnostic.labels))
    for source in sources:
        labels = [(label, i == 0) for i, label in enumerate(diagnostic.labels) if label.span.source is source]
        line, column = source.position(labels[0][0].span.start)
        arrow = "-->" if source is primary else ":::"
        lines.append(paint(f"{' ' * gutter}{arrow}", "frame") + f" {_clean(source.name)}:{line}:{column}")
        lines.extend(_excerpt(source, labels, gutter, severity, paint))
    edge = " " * gutter + " "
    if diagnostic.notes or diagnostic.fix:
        if diagnostic.labels:
            lines.append(edge + paint("|", "frame"))
        for note in diagnostic.notes:
            first, *rest = note.split("\n")
            lines.append(edge + paint("=", "frame") + f" {paint('note', 'bold')}: {_clean(first)}")
            lines.extend(f"{edge}        {_clean(more)}" for more in rest)
    if diagnostic.fix:
        lines.extend(_fix(diagnostic.fix, gutter, paint))
    return "\n".join(lines)


def _excerpt(
    source: Source, labels: Sequence[tuple[Label, bool]], gutter: int, severity: Severity, paint: _Paint
) -> list[str]:
    by_line: dict[int, list[_Mark]] = {}
    for label, is_primary in labels:
        number = label.span.line
        by_line.setdefault(number, []).append(_mark(source, number, label, is_primary))
    bar = paint(" " * gutter + " |", "frame")
    out = [bar]
    before: int | None = None
    for number in sorted(by_line):
        if before is not None and number > before + 2:
            out.append(paint("...", "frame"))
        elif before is not None and number == before + 2:
            out.append(_code(source, number - 1, gutter, paint))
        out.append(_code(source, number, gutter, paint))
        out.extend(f"{bar} {row}" for row in _marks(by_line[number], severity, paint))
        before = number
    return out


def _code(source: Source, number: int, gutter: int, paint: _Paint) -> str:
    text = _clean(source.line(number))
    if len(text) > WIDEST:
        text = text[: WIDEST - 3] + "..."
    return (paint(f"{number:>{gutter}} |", "frame") + f" {text}").rstrip()


def _mark(source: Source, number: int, label: Label, primary: bool) -> _Mark:
    line, start_of_line = source.line(number), source.line_start(number)
    start = min(label.span.start - start_of_line, len(line))
    end = min(label.span.end - start_of_line, len(line))
    left = _width(line[:start])
    text = label.text
    last = source.position(max(label.span.start, label.span.end - 1))[0]
    if last > number:
        text = f"{text} (to line {last})".strip()
    left = min(left, WIDEST)
    return _Mark(left, max(left + 1, min(left + _width(line[start:end]), WIDEST)), _clean(text), primary)


def _marks(marks: Sequence[_Mark], severity: Severity, paint: _Paint) -> list[str]:
    """The rows beneath a source line: carets and dashes, the rightmost text beside them, the others hanging below."""
    ordered = sorted(marks, key=lambda mark: (mark.start, mark.primary))

    def style(mark: _Mark) -> str:
        return severity.value if mark.primary else "frame"

    cells: dict[int, tuple[str, str]] = {}
    for mark in sorted(marks, key=lambda mark: mark.primary):
        for column in range(mark.start, mark.end):
            cells[column] = ("^" if mark.primary else "-", style(mark))
    rightmost = ordered[-1]
    beside = all(mark.end <= rightmost.start for mark in ordered[:-1])
    hanging = [mark for mark in (ordered[:-1] if beside else ordered) if mark.text]
    first = _row(cells, paint)
    if beside and rightmost.text:
        first += " " + paint(rightmost.text, style(rightmost))
    rows = [first]
    while hanging:
        bars = {mark.start: ("|", style(mark)) for mark in hanging}
        rows.append(_row(bars, paint))
        mark = hanging.pop()
        here = {column: bar for column, bar in bars.items() if column < mark.start}
        pad = _row(here, paint)
        reach = max(here) + 1 if here else 0
        rows.append(pad + " " * (mark.start - reach) + paint(mark.text, style(mark)))
    return rows


def _row(cells: dict[int, tuple[str, str]], paint: _Paint) -> str:
    out, at, columns = "", 0, sorted(cells)
    while columns:
        start = columns[0]
        style, run = cells[start][1], ""
        while columns and columns[0] == start + len(run) and cells[columns[0]][1] == style:
            run += cells[columns.pop(0)][0]
        out += " " * (start - at) + paint(run, style)
        at = start + len(run)
    return out


def _fix(fix: Fix, gutter: int, paint: _Paint) -> list[str]:
    edge = " " * gutter + " "
    lines = [edge + paint("=", "frame") + f" {paint('fix', 'fix')}: {_clean(fix.text)}"]
    span = fix.span
    if span is None or fix.replacement is None or "\n" in span.text or "\n" in fix.replacement:
        return lines
    number = span.line
    line, start_of_line = span.source.line(number), span.source.line_start(number)
    start, end = span.start - start_of_line, span.end - start_of_line
    changed = line[:start] + fix.replacement + line[end:]
    if len(changed) > WIDEST:
        return lines
    under = " " * _width(line[:start]) + paint("~" * max(1, _width(fix.replacement)), "fix")
    bar = paint(" " * gutter + " |", "frame")
    return [*lines, bar, paint(f"{number:>{gutter}} |", "frame") + f" {_clean(changed)}", f"{bar} {under}"]


def _clean(text: str) -> str:
    """Tabs become four columns; control characters and those that reorder text are shown as a mark, not obeyed."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_show(c) for c in text)


def _show(c: str) -> str:
    if c == "\t":
        return "    "
    return "�" if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") else c


def _width(text: str) -> int:
    """Display columns of `text` as `_clean` shows it."""
    if text.isascii() and text.isprintable():
        return len(text)
    return sum(_columns(c) for c in text)


def _columns(c: str) -> int:
    if c == "\t":
        return 4
    if unicodedata.category(c) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(c) in ("W", "F") else 1
