"""What can be wrong with a CUDA target or with the compiler that it needs, as diagnostics."""

from __future__ import annotations

from moec.diagnostics import Diagnostic, Fix, Severity
from moec.errors import DiagnosticError


def fault(code: str, message: str, fix: str, *notes: str) -> DiagnosticError:
    return DiagnosticError([Diagnostic(code, Severity.ERROR, message, (), notes, Fix(fix))])
