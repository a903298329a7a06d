"""The C++ of a project as a function on rows of codes."""

from __future__ import annotations

import ctypes
import threading
from typing import Any, NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray

from moec.artifact.hls import Folder
from moec.artifact.simulation import CSIM_ENTRY
from moec.errors import ArtifactError, MoecError
from moec.fixed.layout import layout
from moec.fixed.packing import pack, pack_rows, unpack_rows
from moec.fixed.parameters import Parameters
from moec.runtime.hls import build

Integers = NDArray[np.int64]
Bytes = NDArray[np.uint8]


class Simulator(Protocol):
    """Something that computes what hardware would; shared by copies of a layer, and never pickled."""

    name: str

    def prepare(self, parameters: Parameters) -> Any:
        """The parameters in the form that `run` takes."""
        ...

    def run(self, prepared: Any, rows: Integers, tasks: Integers | None) -> Integers:
        """The result's codes [T, d] of the input's [T, d], for any number of tokens; safe to call from any thread."""
        ...


class Csim:
    """The csim library, loaded."""

    name = "csim"

    def __init__(self, project: Folder) -> None:
        """Build the library if need be, and load it.  Raises ToolchainError, or ArtifactError."""
        self._design = project.project.design
        self._lock = threading.Lock()
        self._function = entry(build.csim(project), CSIM_ENTRY)

    def prepare(self, parameters: Parameters) -> Bytes:
        return pack(self._design, parameters)

    def run(self, prepared: Bytes, rows: Integers, tasks: Integers | None) -> Integers:
        design = self._design
        result = np.zeros((len(rows), layout(design).output_words, design.port_bits // 8), np.uint8)
        words = pack_rows(design, rows)
        numbers = None if tasks is None else np.ascontiguousarray(tasks, np.int32)
        ports = pointers(prepared)
        with self._lock:
            for begin in range(0, len(rows), design.tokens):
                some = slice(begin, begin + design.tokens)
                given = (words[some], None if numbers is None else numbers[some], result[some])
                x, chosen, y = (None if a is None else a.ctypes.data_as(ctypes.c_void_p) for a in given)
                if self._function(x, chosen, ports, y, len(given[0])) != 0:
                    raise MoecError("the simulation of a hardware project refused its input")
        return unpack_rows(design, result)

    def __deepcopy__(self, memo: dict[int, object]) -> Csim:
        return self

    def __reduce__(self) -> NoReturn:
        raise not_pickled()


def entry(path: Any, name: str) -> Any:
    """The C function of a library.  Raises ArtifactError where there is none."""
    try:
        function = getattr(ctypes.CDLL(str(path)), name)
    except (OSError, AttributeError) as error:
        raise ArtifactError(f"{path} is not a library that simulates a project: {error}") from error
    function.restype = ctypes.c_int
    return function


def pointers(memory: Bytes) -> Any:
    """A C array of where each port's memory begins."""
    return (ctypes.c_void_p * len(memory))(*(port.ctypes.data for port in memory))


def not_pickled() -> MoecError:
    return MoecError(
        "a simulated layer cannot be pickled: its code is in its project. Save `layer.state_dict()`, and give it to "
        "the layer that `moec.load` makes of the project."
    )
