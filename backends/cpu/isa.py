"""The instruction sets that one artifact carries code for, best first."""

from __future__ import annotations

import platform
from dataclasses import dataclass


@dataclass(frozen=True)
class Variant:
    """One instruction set.

    `features` are what the processor must report (names of `cpuid.BITS`); `target_cpu` and `target_features` tell LLVM
    what it may use.  Every function carries both, because the engine otherwise compiles for the machine it runs on.
    """

    name: str
    features: tuple[str, ...]
    target_cpu: str
    target_features: tuple[str, ...]
    lanes: int
    """f32 lanes of one vector register."""
    registers: int
    """Vector registers."""
    has_fma: bool
    has_dot_bf16: bool = False
    """Has `vdpbf16ps`: f32 lanes += the dot products of pairs of bf16; and `vpermi2b`: look-ups in 128 bytes."""
    has_dot_int8: bool = False
    """Has `vpdpbusd`: i32 lanes += the dot products of four u8 and four i8."""
    has_short_dot: bool = False
    """Sums of u8 x i8 are taken in i16, by `vpmaddubsw`, where codes are short enough for them to be exact."""
    extends: tuple[str, ...] = ()
    """Variants whose code this one can run, too, nearest first; all must have the same registers."""

    @property
    def is_x86(self) -> bool:
        return bool(self.target_cpu)

    @property
    def has_halves(self) -> bool:
        """Has `vcvtph2ps` and `vcvtps2ph`: f16 to f32, and f32 to the nearest f16."""
        return "f16c" in self.features

    @property
    def has_scale(self) -> bool:
        """Has `vscalefps`: x * 2^n, rounded once."""
        return "avx512f" in self.features

    @property
    def short_steps(self) -> bool:
        """Has so few registers that tiles have few rows, and a step of them so few multiplications that what else is in
        the loop counts.  The second-level cache that comes with them is half as large as with AVX-512."""
        return self.registers <= 16

    @property
    def vector_bytes(self) -> int:
        return 4 * self.lanes


# What LLVM takes for granted at x86-64-v3 and -v4; a processor must have all of it.
_V3 = ("avx", "avx2", "bmi1", "bmi2", "cx16", "f16c", "fma", "lzcnt", "movbe", "popcnt", "sse4_2")
_V4 = (*_V3, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")

AVX512_BF16 = Variant(
    "avx512_bf16",
    (*_V4, "avx512_bf16", "avx512_vnni", "avx512vbmi"),
    "x86-64-v4",
    ("+avx512bf16", "+avx512vnni", "+avx512vbmi"),
    16,
    32,
    has_fma=True,
    has_dot_bf16=True,
    has_dot_int8=True,
    extends=("avx512_vnni", "avx512"),
)
AVX512_VNNI = Variant(
    "avx512_vnni",
    (*_V4, "avx512_vnni"),
    "x86-64-v4",
    ("+avx512vnni",),
    16,
    32,
    has_fma=True,
    has_dot_int8=True,
    extends=("avx512",),
)
AVX512 = Variant("avx512", _V4, "x86-64-v4", ("+avx512f",), 16, 32, has_fma=True)
AVX2 = Variant("avx2", _V3, "x86-64-v3", ("+avx2", "-avx512f"), 8, 16, has_fma=True, has_short_dot=True)
GENERIC_X86 = Variant("generic", (), "x86-64", ("+sse2", "-sse3", "-avx"), 4, 16, has_fma=False)
GENERIC = Variant("generic", (), "", (), 4, 16, has_fma=False)


def host_variants(*, integer_rows: bool = False) -> tuple[Variant, ...]:
    """The variants that are generated for this machine's architecture, best first.

    With `integer_rows`, for layers that multiply int8 by int8, one more is worth its code.
    """
    if platform.machine().lower() in ("x86_64", "amd64"):
        between = (AVX512_VNNI,) if integer_rows else ()
        return AVX512_BF16, *between, AVX512, AVX2, GENERIC_X86
    return (GENERIC,)
