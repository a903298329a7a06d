"""A driver without a GPU: `libcuda.so.1` as a stand-in whose kernels run on the simulator."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import tvm_ffi

from moec.backends.cuda.arch import Arch
from moec.backends.cuda.backend import CudaBackend
from moec.backends.cuda.targets import architectures
from moec.pipeline import Compilation
from tests.backends.cuda import simulator

_KERNEL = re.compile(r"MOEC_KERNEL\([^)]*\)\s*(\w+)\s*\(")
_ONE_AT_A_TIME = threading.Lock()  # compilers run side by side, and what the simulator is made of is made once


@dataclass(frozen=True)
class Simulator:
    """A compiler whose "cubins" are shared libraries that run on the simulator."""

    fault: simulator.Fault | None = None
    name: str = "the simulator"

    def compile(self, source: str, arch: Arch) -> bytes:
        with _ONE_AT_A_TIME:
            return simulator.library(source, tuple(_KERNEL.findall(source)), self.fault, "-O0").read_bytes()


def compiled(
    text: str, target: str, folder: Path, training: bool = False, fault: simulator.Fault | None = None
) -> Path:
    """The artifact of a `.moe` file, or of a module as it is, for a target `cuda:...`."""
    file = folder / ("layer.mlir" if text.lstrip().startswith("module") else "layer.moe")
    file.write_text(text)
    passes = () if file.suffix == ".mlir" else None
    compilation = Compilation(file, target=target, passes=passes, training=training)
    compilation.__dict__["backend"] = CudaBackend(architectures(target.partition(":")[2]), Simulator(fault))
    compilation.write(file.with_suffix(".so"))
    return file.with_suffix(".so")


@cache
def _library() -> ctypes.CDLL:
    """The stand-in, in this process for good; `dlopen("libcuda.so.1")` finds it by its name."""
    folder = Path(tempfile.mkdtemp(prefix="moec-driver-"))
    source = Path(__file__).with_name("fake_driver.cc")
    path = folder / "libcuda.so.1"
    options = ["-std=c++20", "-O1", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1"]
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("g++ is missing")
    subprocess.run([compiler, *options, str(source), "-o", str(path)], check=True)
    found = ctypes.CDLL(str(path))
    found.fake_record.restype = ctypes.c_char_p
    return found


class Driver:
    """What tests do with the stand-in."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library

    def reset(self, capabilities: Sequence[int] = (90,), multiprocessors: int = 4) -> None:
        """Devices of these compute capabilities."""
        array = (ctypes.c_int * len(capabilities))(*capabilities)
        self._library.fake_reset(len(capabilities), array, multiprocessors)

    @contextmanager
    def failing(self, function: str, result: int) -> Iterator[None]:
        """A function of the driver that gives this CUresult."""
        self._library.fake_fail(function.encode(), result)
        yield
        self._library.fake_fail(b"", 0)

    @contextmanager
    def capturing(self) -> Iterator[None]:
        """A stream is captured into a graph: what cannot be part of one is refused."""
        self._library.fake_capture(1)
        yield
        self._library.fake_capture(0)

    @contextmanager
    def fault(self, kernel: str, argument: int, words: int) -> Iterator[None]:
        """A kernel that leaves one of the first `words` words behind its argument wrong.

        Raises AssertionError where it was not launched.
        """
        self._library.fake_fault(kernel.encode(), argument, words)
        yield
        assert self._library.fake_planted() == 1, f"no fault was planted in {kernel}"
        self._library.fake_fault(b"", 0, 0)

    @property
    def record(self) -> list[str]:
        """What was launched since `reset`: "NAME stream N blocks N", "memset stream N"."""
        return self._library.fake_record().decode().splitlines()

    def retained(self, device: int) -> int:
        """How often the device's primary context is held."""
        return int(self._library.fake_retained(device))

    @property
    def loaded(self) -> int:
        """How many modules are loaded."""
        return int(self._library.fake_loaded())

    @property
    def current(self) -> int:
        """The device of this thread's current context; -1: none."""
        return int(self._library.fake_current())

    def set_current(self, device: int) -> None:
        self._library.fake_set_current(device)


def driver() -> Driver:
    return Driver(_library())


class _Relabelled:
    """A CPU tensor that says to DLPack that it is on a GPU."""

    def __init__(self, tensor: torch.Tensor, device: int) -> None:
        self._capsule = tensor.__dlpack__()
        get = ctypes.pythonapi.PyCapsule_GetPointer
        get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
        address = get(self._capsule, b"dltensor")
        ctypes.c_int32.from_address(address + 8).value = 2
        ctypes.c_int32.from_address(address + 12).value = device
        self._device = device

    def __dlpack__(self, **_: Any) -> Any:
        return self._capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self._device


def on_gpu(tensor: torch.Tensor, device: int = 0) -> Any:
    """A tensor's memory as an argument that is on a CUDA device."""
    return tvm_ffi.from_dlpack(_Relabelled(tensor.detach(), device))
