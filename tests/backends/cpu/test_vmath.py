"""Vector functions against float64, over all exponents, in every variant that this machine can run."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable

import numpy as np
import pytest

from moec.backends.cpu import vmath
from tests.backends.cpu import native

REFERENCES: dict[str, tuple[Callable[..., np.ndarray], float]] = {
    "exp": (np.exp, 1.0),
    "exp2": (np.exp2, 1.0),
    "expm1": (np.expm1, 2.5),
    "log": (np.log, 0.9),
    "log2": (np.log2, 1.5),
    "log1p": (np.log1p, 2.4),
    "sqrt": (np.sqrt, 0.51),
    "rsqrt": (lambda x: 1 / np.sqrt(x), 1.5),
    "tanh": (np.tanh, 1.4),
    "erf": (np.vectorize(math.erf, otypes=[np.float64]), 1.2),
    "floor": (np.floor, 0.0),
    "ceil": (np.ceil, 0.0),
}
SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0, 3.0, -3.0, 1e-45, -1e-45, 3e38]
SMALLEST = 2.0**-126


def samples(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 2**32, 40_000, dtype=np.uint64).astype(np.uint32).view(np.float32)
    near = [rng.uniform(-4, 4, 20_000), rng.uniform(-120, 120, 20_000), 1 + rng.uniform(-0.5, 0.5, 20_000), SPECIAL]
    with np.errstate(all="ignore"):
        whole = np.concatenate([bits, *near]).astype(np.float32)
    return np.resize(whole, len(whole) // 64 * 64 + 64)


def ulps(have: np.ndarray, want: np.ndarray) -> np.ndarray:
    """Distance from the float64 `want` in units in the last place of f32; infinite where the kind of number differs."""
    rounded = want.astype(np.float32)
    spacing = np.where(np.abs(want) < SMALLEST, 2.0**-149, np.spacing(np.maximum(np.abs(rounded), SMALLEST)))
    finite = np.isfinite(rounded) & np.isfinite(have)
    same = (have == rounded) | (np.isnan(have) & np.isnan(rounded))
    distance = np.abs(np.where(finite, have.astype(np.float64) - want, 0)) / spacing
    return np.where(finite, distance, np.where(same, 0, np.inf))


@pytest.mark.parametrize("variant", native.runnable(), ids=lambda v: v.name)
def test_functions_stay_within_their_error(variant):
    x = samples(1)
    functions = {name: getattr(vmath, name) for name in REFERENCES}
    with np.errstate(all="ignore"), native.library(native.elementwise(functions, variant), variant) as library:
        for name, (reference, limit) in REFERENCES.items():
            out = np.empty_like(x)
            getattr(library, f"__tvm_ffi_{name}")(native.address(out), native.address(x), ctypes.c_int64(len(x)))
            error = ulps(out, reference(x.astype(np.float64)))
            worst = error.argmax()
            assert error[worst] <= limit, f"{name}({x[worst]!r}) = {out[worst]!r}, {error[worst]} ulp off"


@pytest.mark.parametrize("variant", native.runnable(), ids=lambda v: v.name)
def test_power(variant):
    rng = np.random.default_rng(2)
    x = np.concatenate([rng.uniform(0, 4, 20_000), rng.uniform(0, 4, 20_000) ** 10]).astype(np.float32)
    y = rng.uniform(-30, 30, len(x)).astype(np.float32)
    grid = np.meshgrid(np.float32(SPECIAL), np.float32(SPECIAL))
    x[: grid[0].size], y[: grid[1].size] = grid[0].ravel(), grid[1].ravel()
    out = np.empty_like(x)
    write = native.elementwise({"power": vmath.power}, variant, 2)
    with np.errstate(all="ignore"), native.library(write, variant) as library:
        library.__tvm_ffi_power(native.address(out), native.address(x), native.address(y), ctypes.c_int64(len(x)))
        error = ulps(out, np.power(x.astype(np.float64), y.astype(np.float64)))
    worst = error.argmax()
    assert error[worst] <= 0.51, f"power({x[worst]!r}, {y[worst]!r}) = {out[worst]!r}"


@pytest.mark.parametrize("variant", native.runnable(), ids=lambda v: v.name)
def test_bf16_rounds_to_nearest_even_and_keeps_nan(variant):
    x = samples(3)
    halfway = (np.arange(64, dtype=np.uint32) << 16 | 0x8000).view(np.float32)  # ties, denormals among them
    x[:64] = halfway
    nans = np.array([0x7F800001, 0xFF800001, 0x7FFFFFFF, 0xFFFFFFFF], np.uint32).view(np.float32)
    x[64:68] = nans
    out = np.empty_like(x)

    def there_and_back(b, value):
        return b.convert(b.convert(value, b.bf16), b.f32)

    with native.library(native.elementwise({"round": there_and_back}, variant), variant) as library:
        library.__tvm_ffi_round(native.address(out), native.address(x), ctypes.c_int64(len(x)))
    bits = x.view(np.uint32).astype(np.uint64)
    low, kept = bits & 0xFFFF, bits >> 16
    up = (low > 0x8000) | ((low == 0x8000) & (kept & 1 == 1))
    want = ((kept + up) << 16).astype(np.uint32)
    numbers = ~np.isnan(x)
    assert (out.view(np.uint32)[numbers] == want[numbers]).all()
    assert np.isnan(out[~numbers]).all()
