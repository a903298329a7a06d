"""The definitions of AVX-512's instructions, beside NumPy, and beside the processor where it has them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from moec.artifact.host import host_features, missing_features
from moec.backends.cpu import isa
from moec.backends.cpu.builder import Builder
from tests.backends.cpu.native import address, library
from tests.emulated import DEFINITIONS, emulated, everywhere

Array = NDArray[np.generic]
INT32 = np.iinfo(np.int32)


def _bf16(rng: np.random.Generator, count: int) -> Array:
    """Bits of numbers that are small or large, positive or negative."""
    values = rng.standard_normal(count) * 2.0 ** rng.integers(-20, 20, count)
    return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def _f32(bits: Array) -> Array:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _bytes(rng: np.random.Generator) -> Array:
    return rng.choice(np.array([0, 1, 127, 128, 255, *rng.integers(0, 256, 8)], np.uint8), 64)


def _dot_bf16(rng: np.random.Generator) -> tuple[list[Array], Array]:
    total, x, y = rng.standard_normal(16).astype(np.float32), _bf16(rng, 32), _bf16(rng, 32)
    products = _f32(x).astype(np.float64) * _f32(y)
    odd = (total + products[1::2]).astype(np.float32)
    return [total, x, y], (odd + products[::2]).astype(np.float32)


def _dot_bytes(rng: np.random.Generator) -> tuple[list[Array], Array]:
    total = rng.integers(INT32.min // 2, INT32.max // 2, 16).astype(np.int32)
    x, y = _bytes(rng), _bytes(rng)
    products = x.astype(np.int32) * y.view(np.int8)
    return [total, x, y], total + products.reshape(16, 4).sum(1, dtype=np.int32)


def _dot_words(rng: np.random.Generator) -> tuple[list[Array], Array]:
    x, y = (rng.choice(np.array([-32768, -32767, -1, 0, 1, 32767, 77], np.int16), 32) for _ in range(2))
    wide = x.astype(np.int64) * y
    return [x, y], (wide[::2] + wide[1::2]).astype(np.int32)  # 2^31 becomes its negative


def _two_rounded(rng: np.random.Generator) -> tuple[list[Array], Array]:
    high, low = (rng.integers(2**23, 255 << 23, 16).astype(np.uint32) for _ in range(2))
    low[:4] = [0x3F808000, 0x3F818000, 0x7F7FFFFF, 0xFF800000]  # ties to even, either way; to infinity; infinity
    both = torch.from_numpy(np.concatenate([low, high]).view(np.float32)).bfloat16()
    return [high, low], both.view(torch.int16).numpy().view(np.uint16)


def _scaled(rng: np.random.Generator) -> tuple[list[Array], Array]:
    x = (rng.standard_normal(16) * 2.0 ** rng.integers(-100, 100, 16)).astype(np.float32)
    exponent = rng.integers(-240, 240, 16).astype(np.float32)
    exponent[:3] = [np.inf, -np.inf, np.nan]
    with np.errstate(all="ignore"):
        wanted = x.astype(np.float64) * np.exp2(exponent.astype(np.float64))
        return [x, exponent], wanted.astype(np.float32)


def _words_looked_up(rng: np.random.Generator) -> tuple[list[Array], Array]:
    table, index = (rng.integers(0, 2**16, 32).astype(np.uint16) for _ in range(2))
    return [table, index], table[index % 32]


def _bytes_looked_up(rng: np.random.Generator) -> tuple[list[Array], Array]:
    low, index, high = (rng.integers(0, 256, 64).astype(np.uint8) for _ in range(3))
    return [low, index, high], np.concatenate([low, high])[index % 128]


@dataclass(frozen=True)
class Case:
    """`make` draws operands and says what comes out; `elements` are those of the operands, and of the result."""

    make: Callable[[np.random.Generator], tuple[list[Array], Array]]
    elements: tuple[str, ...]
    near: float = 0.0
    """How far a processor may be off, relative: nothing says in which precision `vdpbf16ps` adds."""


CASES = {
    "llvm.x86.avx512bf16.dpbf16ps.512": Case(_dot_bf16, ("f32", "bf16", "bf16", "f32"), 1e-5),
    "llvm.x86.avx512bf16.cvtne2ps2bf16.512": Case(_two_rounded, ("f32", "f32", "bf16")),
    "llvm.x86.avx512.vpdpbusd.512": Case(_dot_bytes, ("i32", "i8", "i8", "i32")),
    "llvm.x86.avx512.pmaddw.d.512": Case(_dot_words, ("i16", "i16", "i32")),
    "llvm.x86.avx512.permvar.hi.512": Case(_words_looked_up, ("i16", "i16", "i16")),
    "llvm.x86.avx512.vpermi2var.qi.512": Case(_bytes_looked_up, ("i8", "i8", "i8", "i8")),
    "llvm.x86.avx512.mask.scalef.ps.512": Case(_scaled, ("f32", "f32", "f32")),
}


def test_every_definition_has_a_case() -> None:
    assert CASES.keys() == DEFINITIONS.keys()


@pytest.mark.parametrize("native", [False, True], ids=["emulated", "native"])
@pytest.mark.parametrize("name", CASES)
def test_an_instruction(name: str, native: bool) -> None:
    variant = isa.AVX512_BF16 if native else emulated(isa.AVX512_BF16)
    missing = missing_features(variant, host_features())
    if missing:
        pytest.skip(f"this processor has no {', '.join(missing)}")
    case, rng = CASES[name], np.random.default_rng(5)

    def write(b: Builder) -> None:
        widths = {"f32": 16, "i32": 16, "bf16": 32, "i16": 32, "i8": 64}
        *operands, result = (b.vec(widths[element], getattr(b, element)) for element in case.elements)
        function = b.declare("__tvm_ffi_one", [b.ptr] * len(case.elements), linkage="external")
        with b.define(function) as (out, *sources):
            values = [source.load(type_) for source, type_ in zip(sources, operands, strict=True)]
            if "scalef" in name:
                values += [values[0], b.constant(b.i16, -1), b.constant(b.i32, 4)]
            out.store(b.intrinsic(name, result, *values).bitcast(b.vec(64, b.i8)))

    with everywhere(), library(write, variant) as loaded:
        for _ in range(50):
            inputs, wanted = case.make(rng)
            found = np.zeros_like(wanted)
            loaded.__tvm_ffi_one(address(found), *[address(array) for array in inputs])
            if native and case.near:
                np.testing.assert_allclose(found, wanted, case.near, case.near)
            else:
                np.testing.assert_array_equal(found, wanted)
