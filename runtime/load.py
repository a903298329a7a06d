"""`moec.load`: from the artifact's file to an `nn.Module`."""

from __future__ import annotations

import os

from moec.artifact.container import read
from moec.errors import UnsupportedCpu
from moec.runtime.module import Layer
from moec.runtime.native import kernel, library


def load(path: str | os.PathLike[str], *, keep_weights: bool = False, variant: str | None = None) -> Layer:
    """Load a compiled layer.  This runs the artifact's machine code: load only files whose author you trust.

    path          the artifact that `moec compile` wrote
    keep_weights  keep ordinary weight tensors beside the packed ones, so that they can be edited in place
    variant       one of the artifact's variants; by default the best that this processor can run

    Returns a layer without weights: `load_state_dict` or `reset_parameters` gives them.

    Raises NotAnArtifact, TruncatedArtifact, TamperedArtifact, NewerSchema, UnsupportedCpu (all ArtifactError), and
    OSError where the file cannot be read.
    """
    code = library(read(path))
    names = [v.name for v in code.manifest.variants]
    if variant is not None and variant not in names:
        raise UnsupportedCpu(f"{code.path} has no variant {variant!r}; it has {', '.join(names)}")
    if variant is not None and variant not in code.supported:
        raise UnsupportedCpu(
            f"{code.path}: this processor cannot run the variant {variant!r}, only {', '.join(code.supported)}"
        )
    return Layer(kernel(code.sha256, variant or code.supported[0]), keep_weights)
