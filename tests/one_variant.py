"""Compiling for the best instruction set of this processor only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from moec.artifact.host import host_features, missing_features
from moec.backends.cpu import isa
from moec.backends.cpu.backend import CpuBackend


@contextmanager
def one_variant() -> Iterator[None]:
    """Compile for the best instruction set of this processor only: that takes a fourth of the time."""
    have = host_features()
    best = next(variant for variant in isa.host_variants() if not missing_features(variant, have))
    with patch.object(CpuBackend, "variants", lambda *_: (best,)):
        yield
