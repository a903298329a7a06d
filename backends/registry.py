"""Which backends there are; each is imported when it is asked for."""

from __future__ import annotations

import importlib

from moec.backends.base import Backend, ProjectBackend
from moec.diagnostics import Diagnostic, Fix, Severity, closest
from moec.errors import DiagnosticError

# name -> module:class
BACKENDS = {
    "cpu": "moec.backends.cpu.backend:CpuBackend",
    "hls": "moec.backends.hls.backend:HlsBackend",
    "cuda": "moec.backends.cuda.backend:CudaBackend",
}


def backend(target: str) -> Backend:
    """`backend_of` where an artifact is wanted.  Raises DiagnosticError for a target that projects are written for."""
    found = backend_of(target)
    if isinstance(found, ProjectBackend):
        said = f"the target `{target}` makes projects for other tools, which is not possible here"
        raise DiagnosticError([Diagnostic("E0745", Severity.ERROR, said, (), (), Fix("write `--target cpu`"))])
    return found


def backend_of(target: str) -> Backend | ProjectBackend:
    """The backend of a target, `NAME` or `NAME:OPTION`; the option is handed to the backend, which checks it.

    Raises DiagnosticError with a suggestion when there is none of this name, or when it does not take the option.
    """
    name, colon, option = target.partition(":")
    if name not in BACKENDS:
        near = closest(name, BACKENDS)
        hint = f"did you mean `{near}`?" if near else f"the targets are: {', '.join(BACKENDS)}"
        raise DiagnosticError([Diagnostic("E0702", Severity.ERROR, f"there is no target `{name}`", (), (), Fix(hint))])
    module, _, attribute = BACKENDS[name].partition(":")
    found: Backend | ProjectBackend = getattr(importlib.import_module(module), attribute).of(option if colon else None)
    return found
