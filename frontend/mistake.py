"""An error in an expression, on its way to the collector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moec.diagnostics import Collector, Fix, Label, Span


@dataclass(eq=False)
class Mistake(Exception):
    """Raised by what types an operation; the evaluator reports it and goes on with an unknown value."""

    code: str
    message: str
    span: Span
    label: str = ""
    also: Sequence[Label] = ()
    notes: Sequence[str] = ()
    fix: Fix | str | None = None

    def report(self, found: Collector) -> None:
        found.error(self.code, self.message, self.span, self.label, also=self.also, notes=self.notes, fix=self.fix)
