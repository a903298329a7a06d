"""Measures the limits: thoroughly once, and briefly around every measurement, because shared machines drift."""

from __future__ import annotations

import mmap
import statistics
from dataclasses import dataclass

from bench.limits.engine import Engine, seconds_together
from bench.limits.kernels import ACCUMULATORS, LINE, STREAMS

MIB = 1 << 20
BRIEF_SECONDS = 0.02
FLOP_PER_LANE = {"multiply_add_f32": 2, "dot_bf16": 4}


@dataclass(frozen=True)
class Limits:
    """FLOP/s and bytes/s of all threads together."""

    f32: float
    bf16: float
    dram: float

    def seconds(self, dtype: str, flop: float, read_bytes: float) -> float:
        """The least seconds for `flop` operations and `read_bytes` bytes from memory, overlapped without loss."""
        return max(flop / (self.bf16 if dtype == "bf16" else self.f32), read_bytes / self.dram)


class Prober:
    """Holds the kernels and a buffer larger than any cache. `threads` kernels run at once."""

    def __init__(self, threads: int, mib_per_thread: int = 512) -> None:
        self.threads = threads
        self._engine = Engine()
        self.bf16_by = "vdpbf16ps" if self._engine.has_dot_bf16 else "f32 multiply-adds (no bf16 arithmetic found)"
        self._bytes = mib_per_thread * MIB
        self._memory = mmap.mmap(-1, threads * self._bytes)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            self._memory.madvise(mmap.MADV_HUGEPAGE)
        import numpy as np

        view = np.frombuffer(self._memory, np.uint8)
        view.fill(1)  # every page is present before anything is timed
        self._address = int(view.ctypes.data)
        self._iterations = {kernel: self._calibrate(kernel) for kernel in self._arithmetic()}

    def _arithmetic(self) -> list[str]:
        return ["multiply_add_f32", *(["dot_bf16"] if self._engine.has_dot_bf16 else [])]

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

    def f32(self) -> float:
        """FLOP/s of f32 fused multiply-adds, measured for BRIEF_SECONDS."""
        return self._flops("multiply_add_f32")

    def bf16(self) -> float:
        """FLOP/s of bf16 products accumulated in f32; f32's where the processor has no such instruction."""
        return self._flops("dot_bf16" if self._engine.has_dot_bf16 else "multiply_add_f32")

    def dram(self, mib_per_thread: int = 192) -> float:
        """Bytes/s of reading memory once, a part of the buffer a thread."""
        part = min(self._bytes, mib_per_thread * MIB) // (STREAMS * LINE) * (STREAMS * LINE)
        jobs = [self._engine.call("read", self._address + n * self._bytes, part) for n in range(self.threads)]
        return self.threads * part / seconds_together(jobs)

    def brief(self) -> Limits:
        """The limits at this moment, in about a tenth of a second."""
        return Limits(self.f32(), self.bf16(), self.dram())

    def thorough(self, repeats: int = 7) -> Limits:
        """The best of several probes: what the machine does when nobody else is on it."""
        probes = [Limits(self.f32(), self.bf16(), self.dram(self._bytes // MIB)) for _ in range(repeats)]
        return Limits(max(p.f32 for p in probes), max(p.bf16 for p in probes), max(p.dram for p in probes))


def typical(probes: list[Limits]) -> Limits:
    """The median of each limit over the probes around a measurement."""
    return Limits(
        statistics.median(p.f32 for p in probes),
        statistics.median(p.bf16 for p in probes),
        statistics.median(p.dram for p in probes),
    )
