"""Every error that moec raises on purpose; all derive from `MoecError`.

Messages say what was wrong, what was expected and what to do.  This module imports nothing heavy, because what runs a
compiled artifact needs it too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moec.diagnostics import Diagnostic


class MoecError(Exception):
    """The root of moec's errors."""


class DiagnosticError(MoecError):
    """A source file (or an option) is wrong.  `diagnostics` holds every finding, warnings too, in source order."""

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        super().__init__(diagnostics)
        self.diagnostics: tuple[Diagnostic, ...] = tuple(diagnostics)

    def __str__(self) -> str:
        from moec.diagnostics import render_text  # kept out of the import of this module

        return render_text(self.diagnostics)


class ArtifactError(MoecError):
    """A compiled file cannot be used."""


class NotAnArtifact(ArtifactError):
    """The file is not one that moec wrote."""


class TruncatedArtifact(ArtifactError):
    """The file ends too early."""


class TamperedArtifact(ArtifactError):
    """The file's contents do not match its checksum."""


class NewerSchema(ArtifactError):
    """The file was written by a newer moec, in a form that this one does not know."""


class UnsupportedCpu(ArtifactError):
    """None of the file's variants can run on this processor."""


class UnsupportedGpu(ArtifactError):
    """The file has no code for the architecture of a CUDA device."""


class CudaError(MoecError):
    """The driver of a CUDA device refuses something, or a kernel failed there."""


class CudaOutOfMemory(CudaError):
    """A CUDA device has no memory for what the driver was asked for."""


class NoCudaDriver(CudaError):
    """This machine has no driver for CUDA devices."""


class PlacementError(MoecError):
    """Experts cannot be placed on ranks as it was asked."""


class CheckpointError(MoecError):
    """A folder is no checkpoint, an incomplete one, or lacks what is asked of it."""


class RankError(MoecError):
    """Other ranks died, hang, failed or fell behind.  `ranks` are their numbers in the default process group.

    Whatever was under way is lost, and the process groups are of no further use: end the process, and let `torchrun`
    start all ranks again from the last checkpoint.
    """

    def __init__(self, message: str, ranks: Sequence[int]) -> None:
        super().__init__(message)
        self.ranks: tuple[int, ...] = tuple(ranks)


class InputError(MoecError):
    """A call was given something that the layer does not take."""


class ShapeError(InputError):
    """A tensor has a wrong rank or size."""


class DtypeError(InputError):
    """A tensor has a wrong element type."""


class DeviceError(InputError):
    """A tensor lives on a wrong device."""


class LayoutError(InputError):
    """A tensor is not contiguous, or not aligned."""


class RangeError(InputError):
    """A value, such as a token's id, lies outside its table."""


class GradientError(InputError):
    """A gradient was asked for where there is none: of a layer for inference, or a second derivative."""


class WeightsError(MoecError):
    """A layer's weights were never given, or lie packed where ordinary tensors were expected."""


class AdaptationError(MoecError):
    """A layer cannot adapt to its load, or a variant of it cannot be used."""


class TraceError(MoecError):
    """A file is no trace of a layer's load."""


class CompilerError(MoecError):
    """A compiler that works in the background crashed, took too long, refused, or made something wrong."""


class CacheError(MoecError):
    """A folder of compiled variants cannot be used."""


class CompilerMissing(CompilerError):
    """There is no compiler on this machine."""


class JournalError(MoecError):
    """A file is no journal of an adapting layer, or there is none."""


class ToolchainError(MoecError):
    """A program that compiling needs, such as a linker, is missing or failed."""
