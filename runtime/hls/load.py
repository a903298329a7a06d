"""From a project's folder to a simulated layer."""

from __future__ import annotations

import os
import threading
import weakref

from moec.artifact import hls
from moec.runtime.hls.csim import Csim, Simulator
from moec.runtime.hls.layer import SimulatedLayer

_LOADED: weakref.WeakValueDictionary[tuple[str, bool], Simulator] = weakref.WeakValueDictionary()
_LOADING = threading.Lock()


def simulated(path: str | os.PathLike[str], rtl: bool) -> SimulatedLayer:
    """The layer of a project.  This builds the project's own sources and runs them.

    Raises what `moec.artifact.hls.read` raises, ToolchainError where a tool is missing or fails.
    """
    project = hls.read(path)
    with _LOADING:
        found = _LOADED.get((project.sha256, rtl))
        if found is None:
            found = _LOADED[project.sha256, rtl] = _simulator(project, rtl)
    return SimulatedLayer(project, found)


def _simulator(project: hls.Folder, rtl: bool) -> Simulator:
    if rtl:
        from moec.runtime.hls.rtl import Rtl

        return Rtl(project)
    return Csim(project)
