"""The SystemVerilog of a project, Verilated, as a function on rows of codes.

The tile chooses experts, multiplies, requantises, activates and adds up.  A choice that it does not have is made by the
integers of `moec.fixed.reference`, of the logits that the tile computes where its array takes the router's weights.
"""

from __future__ import annotations

import ctypes
import threading
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from moec.artifact.hls import Folder
from moec.errors import MoecError, ToolchainError
from moec.fixed import reference
from moec.fixed.layout import layout
from moec.fixed.model.choice import chooses
from moec.fixed.model.geometry import routes
from moec.fixed.packing import pack, pack_rows, unpack_rows
from moec.fixed.parameters import Parameters
from moec.fixed.reference import Routing
from moec.fixed.verilated import ENTRY, FOLDER, TILE, visits
from moec.runtime.hls import build
from moec.runtime.hls.csim import Bytes, Integers, entry, not_pickled, pointers

LOGITS = "moec_rtl_logits"
ROUTE = "moec_rtl_route"


@dataclass(frozen=True)
class Prepared:
    """Parameters as numbers, for what is decided here, and as the memory that the tile reads."""

    parameters: Parameters
    memory: Bytes


class Rtl:
    """The Verilated tile, loaded."""

    name = "rtl"

    def __init__(self, project: Folder) -> None:
        """Build the library if need be, and load it.

        Raises ToolchainError where Verilator is missing or fails, or the project was written without rtl/.
        """
        if f"{FOLDER}/{TILE}" not in project.files:
            raise ToolchainError(f"{project.path} was written without {FOLDER}/: compile the layer without `rtl=no`")
        self._design = project.project.design
        self._lock = threading.Lock()
        path = build.rtl(project)
        self._entry = entry(path, ENTRY)
        self._logits = entry(path, LOGITS)
        self._route = entry(path, ROUTE)

    def prepare(self, parameters: Parameters) -> Prepared:
        return Prepared(parameters, pack(self._design, parameters))

    def run(self, prepared: Prepared, rows: Integers, tasks: Integers | None) -> Integers:
        tokens = self._design.tokens
        with self._lock:
            parts = [
                self._some(prepared, rows[at : at + tokens], None if tasks is None else tasks[at : at + tokens])
                for at in range(0, len(rows), tokens)
            ]
        return np.concatenate(parts) if parts else np.zeros_like(rows)

    def _some(self, prepared: Prepared, rows: Integers, tasks: Integers | None) -> Integers:
        design = self._design
        found = visits(design.layer, self._routing(prepared, rows, tasks))
        words, ports = pack_rows(design, rows), pointers(prepared.memory)
        result = np.zeros((len(rows), layout(design).output_words, design.port_bits // 8), np.uint8)
        lists = [_pointer(one) for one in (found.expert, found.first, found.token, found.weight)]
        wrong = self._entry(
            _pointer(words), ports, len(rows), len(found.expert), *lists, _pointer(result), ctypes.c_void_p()
        )
        if wrong:
            raise MoecError("the simulation of a hardware project refused its input")
        return unpack_rows(design, result)

    def _routing(self, prepared: Prepared, rows: Integers, tasks: Integers | None) -> Routing:
        layer, parameters = self._design.layer, prepared.parameters
        if chooses(self._design):
            return self._chosen(prepared, rows, tasks)
        if not routes(self._design):
            return reference.routing(layer, parameters, rows, tasks)
        found = Routing(*(np.zeros((len(rows), layer.router.slots), np.int64) for _ in range(2)))
        for number, gate in enumerate(parameters.gates):
            mine = np.arange(len(rows)) if tasks is None else np.nonzero(tasks == number)[0]
            if len(mine):
                decided = reference.decide(layer.router, gate, self._logits_of(prepared, rows[mine], number))
                found.experts[mine], found.weights[mine] = decided.experts, decided.weights
        return found

    def _chosen(self, prepared: Prepared, rows: Integers, tasks: Integers | None) -> Routing:
        words, ports = pack_rows(self._design, rows), pointers(prepared.memory)
        numbers = np.zeros(len(rows), np.int32) if tasks is None else tasks.astype(np.int32)
        chosen = np.zeros((2, len(rows), self._design.layer.router.slots), np.int32)
        lists = [_pointer(one) for one in chosen]
        if self._route(_pointer(words), _pointer(numbers), ports, len(rows), *lists, ctypes.c_void_p()):
            raise MoecError("the simulation of a hardware project refused its input")
        return Routing(*chosen.astype(np.int64))

    def _logits_of(self, prepared: Prepared, rows: Integers, task: int) -> Integers:
        words, ports = pack_rows(self._design, rows), pointers(prepared.memory)
        logits = np.zeros((len(rows), self._design.layer.experts), np.int32)
        if self._logits(_pointer(words), ports, len(rows), task, _pointer(logits), ctypes.c_void_p()):
            raise MoecError("the simulation of a hardware project refused its input")
        return logits.astype(np.int64)

    def __deepcopy__(self, memo: dict[int, object]) -> Rtl:
        return self

    def __reduce__(self) -> NoReturn:
        raise not_pickled()


def _pointer(array: NDArray[Any]) -> ctypes.c_void_p:
    return array.ctypes.data_as(ctypes.c_void_p)
