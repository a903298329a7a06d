"""Backends: what turns a module of kernel-level `moe` operations into something a machine runs."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moec.backends.base import Backend

# name -> module:class, imported when asked for
BACKENDS = {"cpu": "moec.backends.cpu.backend:CpuBackend"}


def backend(name: str) -> Backend:
    """The backend of this name.  Raises KeyError for one that does not exist."""
    module, _, attribute = BACKENDS[name].partition(":")
    made: Backend = getattr(importlib.import_module(module), attribute)()
    return made
