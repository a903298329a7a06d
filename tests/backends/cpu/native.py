"""Builds kernels into a shared library and calls them through ctypes."""

from __future__ import annotations

import ctypes
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from torch_mlir import ir

from moec.backends.cpu import codegen, isa, link
from moec.backends.cpu.builder import Builder
from moec.backends.cpu.values import Value
from moec.dialect import context

# What /proc/cpuinfo calls some of the features.
_FLAGS = {"bmi1": "bmi1", "cx16": "cx16", "lzcnt": "abm", "sse4_2": "sse4_2"}


def runnable(*, integer_rows: bool = False) -> list[isa.Variant]:
    """The variants that this machine can run."""
    text = Path("/proc/cpuinfo").read_text()
    flags = set(next((line for line in text.splitlines() if line.startswith("flags")), "").split())
    return [
        v for v in isa.host_variants(integer_rows=integer_rows) if all(_FLAGS.get(f, f) in flags for f in v.features)
    ]


@contextmanager
def library(write: Callable[[Builder], None], variant: isa.Variant) -> Iterator[ctypes.CDLL]:
    """A loaded library of what `write` emits; only `__tvm_ffi_*` functions can be reached."""
    with context(), ir.Location.unknown():
        module = ir.Module.create()
        write(Builder(module, variant))
        module.operation.verify()
        codegen.lower_to_llvm(module)
        made = codegen.object_file(module)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.so"
        path.write_bytes(link.link([made]))
        yield ctypes.CDLL(str(path))


def address(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def elementwise(
    functions: dict[str, Callable[..., Value]], variant: isa.Variant, inputs: int = 1
) -> Callable[[Builder], None]:
    """Writes functions `__tvm_ffi_NAME(out, in_0, .., n)` that map f32 vectors; n must be a multiple of the lanes."""

    def write(b: Builder) -> None:
        vector = b.vec(variant.lanes, b.f32)
        for name, compute in functions.items():
            arguments = [b.ptr] * (inputs + 1) + [b.i64]
            function = b.declare(f"__tvm_ffi_{name}", arguments, linkage="external")
            with b.define(function) as (out, *sources, n), b.for_(0, n, variant.lanes) as loop:
                values = [source.at(loop.index, 4).load(vector) for source in sources]
                out.at(loop.index, 4).store(compute(b, *values))

    return write
