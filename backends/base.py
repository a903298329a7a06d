"""What a backend is to the rest of the compiler."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch_mlir import ir

from moec.artifact import manifest
from moec.artifact.cuda import Cuda
from moec.backends.objects import Known
from moec.diagnostics import Diagnostic, Fix, Severity
from moec.dialect.places import place
from moec.errors import DiagnosticError
from moec.fixed.design import Design
from moec.fixed.interface import Interface


class Unsupported(DiagnosticError):
    """A module holds something that the backend cannot compile; one diagnostic for each place."""

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        super().__init__(diagnostics)


def unsupported(backend: str, op: Any, why: str, fix: str | None = None) -> Unsupported:
    """The reason why `backend` cannot compile `op`, with the place in the source where the operation comes from.

    fix  what would help, where something does
    """
    operation = op.operation
    text = f"the {backend} backend does not support `{operation.name}` here: {why}"
    notes = (f"at {place(operation.location)}",)
    return Unsupported([Diagnostic("E0701", Severity.ERROR, text, (), notes, Fix(fix) if fix is not None else None)])


class Variant(Protocol):
    """One of the code paths of an artifact; which of them a machine runs is decided when the artifact is loaded."""

    @property
    def name(self) -> str: ...

    @property
    def features(self) -> tuple[str, ...]: ...


@dataclass(frozen=True)
class Library:
    """A shared library, without the artifact's archive.

    variants  what the manifest says of its variants, best first
    cuda      what it says of the code for CUDA devices; None where there is none
    texts     what else belongs into the artifact's archive, by name
    """

    data: bytes
    variants: tuple[manifest.Variant, ...]
    cuda: Cuda | None = None
    texts: Mapping[str, str] = field(default_factory=dict)


class ProjectBackend(ABC):
    """Turns layers into folders of files that other tools build; graph-level modules, by a pipeline of its own."""

    name: str

    @abstractmethod
    def prepare(self, module: ir.Module) -> None:
        """Write into a graph-level module without losses what passes must know of the target.  Raises Unsupported.

        Does nothing to a module that says it already; raises DiagnosticError where that is for another machine.
        """

    @abstractmethod
    def pipeline(self) -> Sequence[str]:
        """The passes that decide what the project is like, as on the command line."""

    @abstractmethod
    def stages(self) -> Sequence[str]:
        """Names of the textual forms behind the passes, in order."""

    @abstractmethod
    def lower(self, module: ir.Module, stage: str) -> str:
        """The text of a stage.  Raises Unsupported with a reason for everything that cannot be compiled."""

    @abstractmethod
    def project(self, module: ir.Module, decided: Sequence[str]) -> Project:
        """The project of a module that the passes went over.  Raises Unsupported as `lower` does.

        decided: what the passes said that they decided and why
        """


@dataclass(frozen=True)
class Project:
    """What a project's folder holds, beside its manifest.

    design     what the hardware is
    interface  which of the layer's parameters its numbers come from
    files      contents by path below the folder, with `/`
    """

    design: Design
    interface: Interface
    files: Mapping[str, bytes]


class Backend(Protocol):
    """Compiles modules of kernel-level `moe` operations."""

    @property
    def name(self) -> str: ...

    def variants(self, module: ir.Module) -> Sequence[Variant]:
        """The code paths of a module's artifact, best first."""
        ...

    def stages(self) -> Sequence[str]:
        """Names of the textual forms between the kernel level and the result, in order."""
        ...

    def lower(self, module: ir.Module, stage: str) -> str:
        """The text of a stage.  Raises Unsupported with a reason for everything that cannot be compiled."""
        ...

    def compile(self, module: ir.Module, variants: Sequence[str] | None = None, known: Known | None = None) -> Library:
        """The library with these variants, all by default.  Raises Unsupported as `lower` does.

        known: gives code that was made before, and takes what is made now.
        """
        ...
