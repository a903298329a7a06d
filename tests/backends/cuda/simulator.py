"""Kernels of the CUDA backend on the simulator: compiled by g++, called with NumPy arrays."""

from __future__ import annotations

import ctypes
import hashlib
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import moec.backends.cuda
from tests.once import once

INCLUDE = Path(moec.backends.cuda.__file__).parent / "include"
FLAGS = ["-std=c++20", "-g0", "-fPIC", "-U_FORTIFY_SOURCE", "-Wno-psabi", f"-I{INCLUDE}"]
UNITS = ("memory", "launch", "barriers", "copies", "products")


class SimulatorError(Exception):
    """What a GPU would punish: a race, a deadlock, a misuse of a primitive."""


@cache
def _compiler() -> str:
    found = shutil.which("g++")
    if found is None:
        pytest.skip("g++ is missing")
    return found


def _run(*command: str | Path) -> None:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{done.stderr}\n{' '.join(map(str, command))}")


@cache
def objects() -> tuple[Path, ...]:
    """The simulator itself, compiled once."""

    def made(unit: str) -> Path:
        source = INCLUDE / "moec" / "sim" / f"{unit}.cc"
        return once(f"simulator-{unit}.o", lambda to: _run(_compiler(), *FLAGS, "-O2", "-c", source, "-o", to))

    return tuple(made(unit) for unit in UNITS)


@cache
def _primitives(level: str) -> Path:
    """A header that stands for `moec/primitives.cuh`, compiled once: that takes longer than most kernels do."""
    path = once(f"primitives{level}.h", lambda to: to.write_text('#include "moec/primitives.cuh"\n'))
    once(f"{path.name}.gch", lambda to: _run(_compiler(), *FLAGS, level, "-x", "c++-header", path, "-o", to))
    return path


@dataclass(frozen=True)
class Fault:
    """A header below `include` in which `right` stands once, and what is planted there instead."""

    header: str
    right: str
    wrong: str


@cache
def library(source: str, kernels: tuple[str, ...], fault: Fault | None = None, level: str = "-O1") -> Path:
    """The shared library of a source, which exports `moec_sim_launch_NAME` for each of its kernels.

    level  of optimisation: "-O0" compiles whole layers three times as fast; faults are found at once, so they take it
    """
    if fault is not None:
        level = "-O0"
    text = source + "\n" + "".join(f"MOEC_EXPORT({name})\n" for name in kernels)
    name = hashlib.sha256(f"{text}{fault}{level}".encode()).hexdigest()[:24]
    flags = [*FLAGS, level, "-shared", "-include", str(_primitives(level))]
    units = objects()

    def make(to: Path) -> None:
        path = to.with_name(f"{name}.cc")
        path.write_text(text)
        planted = []
        if fault is not None:
            sound = (INCLUDE / fault.header).read_text()
            assert sound.count(fault.right) == 1, f"{fault.right!r} stands {sound.count(fault.right)} times"
            header = path.with_suffix("") / fault.header
            header.parent.mkdir(parents=True, exist_ok=True)
            header.write_text(sound.replace(fault.right, fault.wrong))
            planted = [f"-I{path.with_suffix('')}"]
        _run(_compiler(), *planted, *flags, "-x", "c++", path, "-x", "none", *units, "-o", to)

    return once(f"{name}.so", make)


class TensorMap:
    """How TMA reads `tensor` [E, N, K], as `kernel.TensorMap` says."""

    def __init__(self, tensor: np.ndarray, box: tuple[int, int, int], swizzle: int) -> None:
        self.tensor, self.box, self.swizzle = tensor, box, swizzle


class Simulated:
    """Kernels of one source."""

    def __init__(self, source: str, kernels: Sequence[str], fault: Fault | None = None) -> None:
        self._library = ctypes.CDLL(str(library(source, tuple(kernels), fault)))
        self._library.moec_sim_error.restype = ctypes.c_char_p

    def order(self, seed: int) -> None:
        """In which order blocks and threads run: 0 ascending, 1 descending, else at random."""
        self._library.moec_sim_order(ctypes.c_ulonglong(seed))

    def launch(
        self, name: str, blocks: int, threads: int, shared_bytes: int, *arguments: np.ndarray | TensorMap | int
    ) -> None:
        """Raises SimulatorError.  Arrays are given as pointers, numbers as `int`."""
        values = [self._value(argument) for argument in arguments]
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        launch = getattr(self._library, f"moec_sim_launch_{name}")
        if launch(blocks, threads, ctypes.c_ulonglong(shared_bytes), pointers):
            raise SimulatorError(self._library.moec_sim_error().decode())

    def _value(self, argument: np.ndarray | TensorMap | int) -> ctypes._SimpleCData | ctypes.Array:
        if isinstance(argument, int):
            return ctypes.c_int(argument)
        if isinstance(argument, np.ndarray):
            assert argument.flags.c_contiguous
            return ctypes.c_void_p(argument.ctypes.data)
        tensor = argument.tensor
        experts, rows, inner = tensor.shape
        width = tensor.itemsize
        encoded = (ctypes.c_uint64 * 16)()
        triple, pair = ctypes.c_longlong * 3, ctypes.c_longlong * 2
        wrong = self._library.moec_sim_encode_map(
            encoded,
            ctypes.c_void_p(tensor.ctypes.data),
            triple(inner, rows, experts),
            pair(inner * width, rows * inner * width),
            triple(*argument.box),
            argument.swizzle,
            width,
        )
        assert not wrong, f"no tensor map of {tensor.shape} with box {argument.box}"
        return encoded
