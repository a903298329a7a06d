"""Gathers many diagnostics, so that one run reports every error."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from moec.diagnostics.types import Diagnostic, Fix, Label, Severity, Span
from moec.errors import DiagnosticError

MOST = 100
"""More findings than a person reads; further ones are dropped."""


class Collector:
    """An ordered set of diagnostics.  The same code at the same place is kept once."""

    def __init__(self) -> None:
        self._found: list[Diagnostic] = []
        self._seen: set[tuple[str, str, int, int]] = set()
        self._errors = 0

    def add(self, diagnostic: Diagnostic) -> None:
        span = diagnostic.span
        place = (span.source.name, span.start, span.end) if span else (diagnostic.message, -1, -1)
        if (diagnostic.code, *place) in self._seen:
            return
        if diagnostic.severity is Severity.ERROR:
            self._errors += 1
        if len(self._found) < MOST:
            self._seen.add((diagnostic.code, *place))
            self._found.append(diagnostic)

    def error(
        self,
        code: str,
        message: str,
        span: Span | None,
        label: str = "",
        *,
        also: Sequence[Label] = (),
        notes: Sequence[str] = (),
        fix: Fix | str | None = None,
    ) -> None:
        """Add an error at `span`; `also` are secondary places."""
        self.add(_build(code, Severity.ERROR, message, span, label, also, notes, fix))

    def warning(
        self,
        code: str,
        message: str,
        span: Span | None,
        label: str = "",
        *,
        also: Sequence[Label] = (),
        notes: Sequence[str] = (),
        fix: Fix | str | None = None,
    ) -> None:
        """Add a warning at `span`."""
        self.add(_build(code, Severity.WARNING, message, span, label, also, notes, fix))

    def extend(self, diagnostics: Iterable[Diagnostic]) -> None:
        for diagnostic in diagnostics:
            self.add(diagnostic)

    @property
    def errors(self) -> int:
        """How many errors there are."""
        return self._errors

    @property
    def has_errors(self) -> bool:
        return self._errors > 0

    @property
    def diagnostics(self) -> list[Diagnostic]:
        """Everything found: by file in order of appearance, then by place; what has no place comes first."""
        files: dict[str, int] = {}
        for diagnostic in self._found:
            if diagnostic.span:
                files.setdefault(diagnostic.span.source.name, len(files))

        def place(diagnostic: Diagnostic) -> tuple[int, int]:
            span = diagnostic.span
            return (files[span.source.name], span.start) if span else (-1, 0)

        return sorted(self._found, key=place)

    @property
    def warnings(self) -> list[Diagnostic]:
        return [found for found in self.diagnostics if found.severity is Severity.WARNING]

    def raise_if_errors(self) -> None:
        """Raises DiagnosticError with everything found, if there is an error among it."""
        if self.has_errors:
            raise DiagnosticError(self.diagnostics)


def _build(
    code: str,
    severity: Severity,
    message: str,
    span: Span | None,
    label: str,
    also: Sequence[Label],
    notes: Sequence[str],
    fix: Fix | str | None,
) -> Diagnostic:
    primary = (Label(span, label),) if span else ()
    return Diagnostic(
        code, severity, message, (*primary, *also), tuple(notes), Fix(fix) if isinstance(fix, str) else fix
    )
