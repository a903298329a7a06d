"""Tiles as shared libraries, made by Verilator."""

from __future__ import annotations

import ctypes
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moec.backends.hls.rtl.project import files
from moec.fixed.arithmetic import LOGIT_BITS
from moec.fixed.design import Design
from moec.fixed.layout import layout
from moec.fixed.packing import pack, pack_rows, unpack_rows
from moec.fixed.parameters import Parameters
from moec.fixed.reference import Routing, project
from moec.fixed.vectors import Case
from moec.fixed.verilated import FOLDER, Visits, command

Integers = NDArray[np.int64]


def _pointer(array: NDArray[Any]) -> ctypes.c_void_p:
    return array.ctypes.data_as(ctypes.c_void_p)


def _tasks(case: Case) -> ctypes.c_void_p | None:
    if case.tasks is None:
        return None
    # The array has to live as long as the pointer: ctypes keeps it.
    return _pointer(case.tasks.astype(np.int32))


@dataclass(frozen=True)
class Tile:
    """A design's tile.  Cycles are those of rows, table, route, experts, result."""

    design: Design
    library: ctypes.CDLL

    def _weights(self, parameters: Parameters) -> tuple[Any, NDArray[np.uint8]]:
        memory = pack(self.design, parameters)
        return (ctypes.c_void_p * len(memory))(*(port.ctypes.data for port in memory)), memory

    def run(self, parameters: Parameters, rows: Integers, visits: Visits) -> tuple[Integers, list[int]]:
        design = self.design
        weights, kept = self._weights(parameters)
        words = pack_rows(design, rows)
        result = np.zeros((len(rows), layout(design).output_words, design.port_bits // 8), np.uint8)
        cycles = np.zeros(5, np.uint64)
        lists = [_pointer(each) for each in (visits.expert, visits.first, visits.token, visits.weight)]
        failed = self.library.moec_rtl(
            _pointer(words), weights, len(rows), len(visits.expert), *lists, _pointer(result), _pointer(cycles)
        )
        assert not failed
        del kept
        return unpack_rows(design, result), [int(each) for each in cycles]

    def route(self, case: Case) -> tuple[Routing, list[int]]:
        """The tile's choice, and the cycles of logits and of the choice."""
        weights, kept = self._weights(case.parameters)
        words = pack_rows(self.design, case.rows)
        chosen = np.zeros((2, len(case.rows), self.design.layer.router.slots), np.int32)
        cycles = np.zeros(2, np.uint64)
        failed = self.library.moec_rtl_route(
            _pointer(words), _tasks(case), weights, len(case.rows), *map(_pointer, chosen), _pointer(cycles)
        )
        assert not failed
        del kept
        return Routing(*chosen.astype(np.int64)), [int(each) for each in cycles]

    def call(self, case: Case) -> tuple[Integers, list[int]]:
        """A whole call, and its cycles."""
        design = self.design
        weights, kept = self._weights(case.parameters)
        words = pack_rows(design, case.rows)
        result = np.zeros((len(case.rows), layout(design).output_words, design.port_bits // 8), np.uint8)
        cycles = np.zeros(5, np.uint64)
        failed = self.library.moec_rtl_call(
            _pointer(words), _tasks(case), weights, _pointer(result), len(case.rows), _pointer(cycles)
        )
        assert not failed
        del kept
        return unpack_rows(design, result), [int(each) for each in cycles]

    def logits(self, parameters: Parameters, rows: Integers, task: int) -> tuple[Integers, int]:
        weights, kept = self._weights(parameters)
        words = pack_rows(self.design, rows)
        logits = np.zeros((len(rows), self.design.layer.experts), np.int32)
        cycles = np.zeros(1, np.uint64)
        failed = self.library.moec_rtl_logits(
            _pointer(words), weights, len(rows), task, _pointer(logits), _pointer(cycles)
        )
        assert not failed
        del kept
        return logits.astype(np.int64), int(cycles[0])


def logits(parameters: Parameters, rows: Integers, task: int) -> Integers:
    """What the tile's logits have to be."""
    return project(parameters.gates[task].linear, rows, LOGIT_BITS)


def build(design: Design, folder: Path, verilator: str) -> Tile:
    """Compiles the tile of a design."""
    for path, data in files(design).items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    library = folder / "rtl.so"
    make = command(verilator, folder / FOLDER, library, folder / "build")
    done = subprocess.run(make, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return Tile(design, ctypes.CDLL(str(library)))
