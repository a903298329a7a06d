"""Which backends there are; each is imported when it is asked for."""

from __future__ import annotations

import importlib

from moec.backends.base import Backend
from moec.diagnostics import Diagnostic, Fix, Severity, closest
from moec.errors import DiagnosticError

# name -> module:class
BACKENDS = {
    "cpu": "moec.backends.cpu.backend:CpuBackend",
    "cuda": "moec.backends.cuda.backend:CudaBackend",
}


def backend(target: str) -> Backend:
    """The backend of a target, `NAME` or `NAME:OPTION`; the option is handed to the backend, which checks it.

    Raises DiagnosticError with a suggestion when there is none of this name, or when it does not take the option.
    """
    name, colon, option = target.partition(":")
    if name not in BACKENDS:
        near = closest(name, BACKENDS)
        hint = f"did you mean `{near}`?" if near else f"the targets are: {', '.join(BACKENDS)}"
        raise DiagnosticError([Diagnostic("E0702", Severity.ERROR, f"there is no target `{name}`", (), (), Fix(hint))])
    module, _, attribute = BACKENDS[name].partition(":")
    found: Backend = getattr(importlib.import_module(module), attribute).of(option if colon else None)
    return found
