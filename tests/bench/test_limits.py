"""The probes run and count what they do. How fast they are is no test."""

from __future__ import annotations

import ctypes
import mmap

import pytest

from bench.limits import Limits, Prober, kernels
from bench.limits.engine import Engine
from bench.limits.probe import typical


def test_probes_return_rates() -> None:
    prober = Prober(threads=1, mib_per_thread=8)
    for probe in (prober.brief(), prober.thorough(repeats=1)):
        assert min(probe.f32, probe.bf16, probe.int8, probe.dram) > 1e6


def test_the_reading_loop_reads_every_byte() -> None:
    """The sink holds the exclusive-or of all words of a lane: one changed word anywhere shows."""
    engine = Engine()
    memory = mmap.mmap(-1, 4096)  # a page: aligned for the widest loads, a multiple of 4 streams × 64 bytes
    words = (ctypes.c_int32 * 1024).from_buffer(memory)

    def folded() -> int:
        sink = (ctypes.c_int32 * 16)()
        engine.call_into(ctypes.addressof(sink), "read", ctypes.addressof(words), ctypes.sizeof(words))()
        value = 0
        for lane in sink:
            value ^= lane
        return value

    assert folded() == 0
    for place in range(0, 1024, 37):
        words[place] = 5
        assert folded() == 5
        words[place] = 0


def test_a_cell_is_bound_by_the_slower_of_arithmetic_and_memory() -> None:
    limits = Limits(f32=100.0, bf16=200.0, int8=400.0, dram=10.0)
    assert limits.seconds("f32", flop=1000, read_bytes=10) == pytest.approx(10)
    assert limits.seconds("bf16", flop=1000, read_bytes=10) == pytest.approx(5)
    assert limits.seconds("int8", flop=1000, read_bytes=10) == pytest.approx(2.5)
    assert limits.seconds("bf16", flop=1000, read_bytes=1000) == pytest.approx(100)


def test_typical_is_the_median_of_each_limit() -> None:
    probes = [Limits(1, 30, 5, 7), Limits(2, 10, 6, 9), Limits(3, 20, 4, 8)]
    assert typical(probes) == Limits(2, 20, 5, 8)


def test_an_integer_loop_of_one_iteration_adds_its_products() -> None:
    """Each of the accumulators starts at its number and gains 4 products of 3 and 1; the sink holds their sum."""
    engine = Engine()
    if not engine.has_dot_int8:
        pytest.skip("this processor has no avx512_vnni")
    sink = (ctypes.c_int32 * 16)()
    engine.call_into(ctypes.addressof(sink), "dot_int8", 1)()
    assert set(sink) == {sum(range(16)) + 16 * 12}


def test_a_loop_of_pairs_adds_its_products() -> None:
    """Each of the accumulators doubles, as it is multiplied by 1 and added to itself; the sink holds their sum."""
    engine = Engine()
    if not engine.has_dot_words:
        pytest.skip("this processor has neither AVX2 nor avx512bw")
    sink = (ctypes.c_int32 * 16)()
    engine.call_into(ctypes.addressof(sink), "dot_words", 3)()
    assert set(sink[: engine.lanes]) == {8 * sum(range(kernels.ACCUMULATORS))}
