"""Compiles the limit kernels in memory and runs them on several threads at once."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.limits import kernels

LOWERING = (
    "builtin.module(convert-scf-to-cf,convert-vector-to-llvm{enable-x86=true},convert-arith-to-llvm,"
    "convert-cf-to-llvm,convert-func-to-llvm,reconcile-unrealized-casts)"
)
SINK_BYTES = 64


def cpu_flags() -> frozenset[str]:
    """Processor features as /proc/cpuinfo names them; empty where there is no such file."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return frozenset()
    for line in cpuinfo.read_text().splitlines():
        if line.startswith(("flags", "Features")):
            return frozenset(line.split(":", 1)[1].split())
    return frozenset()


class Engine:
    """The compiled kernels of this machine."""

    def __init__(self) -> None:
        from torch_mlir import ir
        from torch_mlir.execution_engine import ExecutionEngine
        from torch_mlir.passmanager import PassManager

        flags = cpu_flags()
        self.lanes = 16 if "avx512f" in flags else 8 if "avx2" in flags else 4
        self.has_dot_bf16 = "avx512_bf16" in flags and self.lanes == 16
        self.has_dot_int8 = "avx512_vnni" in flags and self.lanes == 16
        self.has_dot_words = self.lanes == 8 or "avx512bw" in flags
        with ir.Context(), ir.Location.unknown():
            instructions = (self.has_dot_bf16, self.has_dot_int8, self.has_dot_words)
            module = ir.Module.parse(kernels.module(self.lanes, *instructions))
            PassManager.parse(LOWERING).run(module.operation)
            self._engine = ExecutionEngine(module, opt_level=3)

    def call(self, kernel: str, *arguments: int) -> Callable[[], None]:
        """A callable that runs `kernel(*arguments)` and drops its result; it holds no interpreter lock meanwhile."""
        sink = ctypes.create_string_buffer(SINK_BYTES)
        run = self.call_into(ctypes.addressof(sink), kernel, *arguments)

        def run_with_sink() -> None:
            run()
            _ = sink  # kept alive as long as the callable

        return run_with_sink

    def call_into(self, sink: int, kernel: str, *arguments: int) -> Callable[[], None]:
        """The same with a result: a vector of the machine's widest kind, stored at the address `sink`."""
        function = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self._engine.raw_lookup(kernel))
        values = [ctypes.c_int64(argument) for argument in (*arguments, sink)]
        packed = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))

        def run() -> None:
            function(packed)
            _ = values  # as above

        return run


def seconds_together(jobs: Sequence[Callable[[], None]]) -> float:
    """Wall-clock seconds from the first start to the last end of `jobs`, each on a thread and a core of its own."""
    cores = sorted(os.sched_getaffinity(0))
    barrier = threading.Barrier(len(jobs))
    spans = [(0.0, 0.0)] * len(jobs)

    def work(number: int) -> None:
        os.sched_setaffinity(0, {cores[number % len(cores)]})  # 0: the calling thread alone
        barrier.wait()
        begun = time.perf_counter()
        jobs[number]()
        spans[number] = (begun, time.perf_counter())

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return max(end for _, end in spans) - min(begun for begun, _ in spans)
