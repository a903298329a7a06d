"""What a backend is to the rest of the compiler."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch_mlir import ir

from moec.diagnostics import Diagnostic, Severity
from moec.errors import DiagnosticError


class Unsupported(DiagnosticError):
    """A module holds something that the backend cannot compile; one diagnostic for each place."""

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        super().__init__(diagnostics)


def unsupported(backend: str, op: Any, why: str) -> Unsupported:
    """The reason why `backend` cannot compile `op`, with the place in the source where the operation comes from."""
    operation = op.operation
    text = f"the {backend} backend does not support `{operation.name}` here: {why}"
    where = str(operation.location).removeprefix("loc(").removesuffix(")")
    return Unsupported([Diagnostic("E0701", Severity.ERROR, text, notes=(f"at {where}",))])


class Backend(Protocol):
    """Compiles modules of kernel-level `moe` operations."""

    name: str

    def stages(self) -> Sequence[str]:
        """Names of the textual forms between the kernel level and the result, in order."""
        ...

    def lower(self, module: ir.Module, stage: str) -> str:
        """The text of a stage.  Raises Unsupported with a reason for everything that cannot be compiled."""
        ...

    def compile(self, module: ir.Module) -> bytes:
        """The object, without the artifact's archive.  Raises Unsupported as `lower` does."""
        ...
