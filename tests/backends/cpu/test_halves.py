"""f16 on every variant, with its instructions and without them: bit for bit those of NumPy."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from tests.backends.cpu import native
from tests.oracle.test_rounding import awkward

VARIANTS = native.runnable()


@pytest.mark.parametrize("lanes", [1, 3, 16])
@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: v.name)
def test_conversions(variant, lanes: int) -> None:
    everything = np.arange(2**16, dtype=np.uint16)  # every f16, NaN of all kinds among them
    random = np.random.default_rng(0).integers(0, 2**32, 3 * 2**15, dtype=np.uint32).view(np.float32)
    values = np.concatenate([random, awkward()])
    values = values[: len(values) // 48 * 48]

    def write(b):
        for name, source, target in (("widen", b.f16, b.f32), ("round", b.f32, b.f16)):
            function = b.declare(f"__tvm_ffi_{name}", [b.ptr, b.ptr, b.i64], linkage="external")
            sizes = [2 if element == b.f16 else 4 for element in (source, target)]
            with b.define(function) as (out, given, n), b.for_(0, n, lanes) as loop:
                type_ = source if lanes == 1 else b.vec(lanes, source)
                value = given.at(loop.index, sizes[0]).load(type_, align=1)
                out.at(loop.index, sizes[1]).store(b.convert(value, target), align=1)

    wide, narrow = np.zeros(2**16, np.float32), np.zeros(len(values), np.uint16)
    with np.errstate(all="ignore"), native.library(write, variant) as library:
        count = 2**16 // lanes * lanes
        library.__tvm_ffi_widen(native.address(wide), native.address(everything), ctypes.c_int64(count))
        library.__tvm_ffi_round(native.address(narrow), native.address(values), ctypes.c_int64(len(values)))
        want, near = everything.view(np.float16).astype(np.float32), values.astype(np.float16)
    np.testing.assert_array_equal(wide[:count], want[:count])
    numbers = ~np.isnan(want[:count])
    assert (wide.view(np.uint32)[:count] == want.view(np.uint32)[:count])[numbers].all()
    numbers = ~np.isnan(values)
    assert (narrow == near.view(np.uint16))[numbers].all()
    assert np.isnan(narrow.view(np.float16)[~numbers]).all()
