"""Measures the limits: thoroughly once, and briefly around every measurement, because shared machines drift."""

from __future__ import annotations

import mmap
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields

from bench.limits.engine import Engine, seconds_together
from bench.limits.kernels import ACCUMULATORS, LINE, STREAMS

MIB = 1 << 20
BRIEF_SECONDS = 0.02
FLOP_PER_LANE = {"multiply_add_f32": 2, "dot_bf16": 4, "dot_int8": 8, "dot_words": 4}
INSTRUCTION = {
    "multiply_add_f32": "f32 multiply-adds",
    "dot_bf16": "vdpbf16ps",
    "dot_int8": "vpdpbusd",
    "dot_words": "vpmaddwd and vpaddd",
}


@dataclass(frozen=True)
class Limits:
    """FLOP/s (of int8: integer operations/s) and bytes/s of all threads together."""

    f32: float
    bf16: float
    int8: float
    dram: float

    def seconds(self, arithmetic: str, flop: float, read_bytes: float) -> float:
        """The least seconds for `flop` operations and `read_bytes` bytes from memory, overlapped without loss.

        `arithmetic`: "f32", "bf16" or "int8", what both factors of the products are.
        """
        peaks = {"f32": self.f32, "bf16": self.bf16, "int8": self.int8}
        return max(flop / peaks[arithmetic], read_bytes / self.dram)


class Prober:
    """Holds the kernels and a buffer larger than any cache. `threads` kernels run at once."""

    def __init__(self, threads: int, mib_per_thread: int = 512) -> None:
        self.threads = threads
        self._engine = Engine()
        self._kernel = {
            "f32": "multiply_add_f32",
            "bf16": "dot_bf16" if self._engine.has_dot_bf16 else "multiply_add_f32",
            "int8": self._int8_kernel(),
        }
        self.measured_by = {arithmetic: INSTRUCTION[kernel] for arithmetic, kernel in self._kernel.items()}
        """What the peak of each arithmetic is of: the fastest exact instructions that the processor has for it."""
        self._bytes = mib_per_thread * MIB
        self._memory = mmap.mmap(-1, threads * self._bytes)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            self._memory.madvise(mmap.MADV_HUGEPAGE)
        import numpy as np

        view = np.frombuffer(self._memory, np.uint8)
        view.fill(1)  # every page is present before anything is timed
        self._address = int(view.ctypes.data)
        self._iterations = {kernel: self._calibrate(kernel) for kernel in set(self._kernel.values())}

    def _int8_kernel(self) -> str:
        if self._engine.has_dot_int8:
            return "dot_int8"
        return "dot_words" if self._engine.has_dot_words else "multiply_add_f32"

    def _calibrate(self, kernel: str) -> int:
        """Iterations that take about BRIEF_SECONDS."""
        iterations = 1 << 16
        seconds = min(seconds_together([self._engine.call(kernel, iterations)]) for _ in range(3))
        return max(1, int(iterations * BRIEF_SECONDS / seconds))

    def _flops(self, kernel: str) -> float:
        iterations = self._iterations[kernel]
        jobs = [self._engine.call(kernel, iterations) for _ in range(self.threads)]
        flop = FLOP_PER_LANE[kernel] * self._engine.lanes * ACCUMULATORS * iterations
        return self.threads * flop / seconds_together(jobs)

    def peak(self, arithmetic: str) -> float:
        """FLOP/s of products of "f32", "bf16" (summed in f32) or "int8" (in i32), measured for BRIEF_SECONDS."""
        return self._flops(self._kernel[arithmetic])

    def dram(self, mib_per_thread: int = 192) -> float:
        """Bytes/s of reading memory once, a part of the buffer a thread."""
        part = min(self._bytes, mib_per_thread * MIB) // (STREAMS * LINE) * (STREAMS * LINE)
        jobs = [self._engine.call("read", self._address + n * self._bytes, part) for n in range(self.threads)]
        return self.threads * part / seconds_together(jobs)

    def _probe(self, mib_per_thread: int) -> Limits:
        return Limits(self.peak("f32"), self.peak("bf16"), self.peak("int8"), self.dram(mib_per_thread))

    def brief(self) -> Limits:
        """The limits at this moment, in about a tenth of a second."""
        return self._probe(192)

    def thorough(self, repeats: int = 7) -> Limits:
        """The best of several probes: what the machine does when nobody else is on it."""
        return _each(max, [self._probe(self._bytes // MIB) for _ in range(repeats)])


def typical(probes: Sequence[Limits]) -> Limits:
    """The median of each limit over the probes around a measurement."""
    return _each(statistics.median, probes)


def _each(choose: Callable[[Iterable[float]], float], probes: Sequence[Limits]) -> Limits:
    """`choose` of each limit over the probes."""
    return Limits(*(choose([getattr(probe, field.name) for probe in probes]) for field in fields(Limits)))
