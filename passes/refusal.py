"""How passes say that something is beyond them: as diagnostics, at the place in the source where there is one."""

from collections.abc import Sequence

from torch_mlir import ir

from moec.diagnostics import Diagnostic, Fix, Severity
from moec.dialect.places import place
from moec.errors import DiagnosticError


def error(code: str, message: str, *, notes: Sequence[str] = (), fix: str = "") -> DiagnosticError:
    """A DiagnosticError of one finding that has no place in a source text."""
    return DiagnosticError([Diagnostic(code, Severity.ERROR, message, (), tuple(notes), Fix(fix) if fix else None)])


def refuse(op: ir.OpView | ir.Operation, why: str) -> DiagnosticError:
    """The error to raise when a pass cannot lower `op`."""
    return error("E0610", why, notes=[f"at {place(op.location)}"])
