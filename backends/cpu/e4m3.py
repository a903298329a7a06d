"""Floats of 8 bits, E4M3 (arXiv:2209.05433): a sign, four bits of exponent and three of fraction, no infinities.

Only numbers that are no subnormals of f32 or bf16 come up in between, so that nothing depends on whether the processor
flushes these to zero.
"""

from __future__ import annotations

import math
import struct

from moec.backends.cpu.builder import Builder
from moec.backends.cpu.values import Value, constant

_REBIAS = 120
"""What exponents of f32 are above those of E4M3."""
_LEAST = 2.0**-6
"""The smallest magnitude that is no subnormal of E4M3; these are multiples of 2^-9."""
_LARGEST = 448.0
_ROUND = 1.5 * 2.0**23
_ROUND_BITS = 0x4B400000
"""As in `quantise`: leave the nearest integer in the low bits."""


def magnitude(code: int) -> float:
    """What the code of a positive number stands for; the last one, 127, is NaN."""
    exponent, fraction = code >> 3, code & 7
    if code == 127:
        return math.nan
    return math.ldexp(8 + fraction, exponent - 10) if exponent else math.ldexp(fraction, -9)


def bf16_words() -> list[int]:
    """The bits of every magnitude as bf16, exactly."""
    return [int.from_bytes(struct.pack(">f", magnitude(code))[:2], "big") for code in range(128)]


def widened(b: Builder, words: Value, begin: int) -> Value:
    """f32, exactly, of the codes whose lowest bits are number `begin` of i32 words."""
    f32 = b.like(words, b.f32)
    above = words << (20 - begin) if begin <= 20 else words >> (begin - 20)
    # Exponent and fraction at their places in f32; a subnormal then is (1 + fraction/8) * 2^-7, and twice that less
    # 2^-6 is right.  Of other numbers twice as much less 2^-6 is more.
    number = ((above & 0x07F00000) + (_REBIAS << 23)).bitcast(f32)
    number = b.minimum(number, b.fma(number, constant(f32, 2.0), constant(f32, -_LEAST)))
    number = b.select(number > _LARGEST, constant(f32, math.nan), number)
    sign = (words << (24 - begin) if begin < 24 else words) & -0x80000000
    return (number.bitcast(words.type) | sign).bitcast(f32)


def through_f16(b: Builder, codes: Value) -> Value:
    """f32 lanes of codes (i8 lanes), times 2^-8: as f16, whose bias is 8 more and whose subnormals conversions keep."""
    placed = (b.convert(codes, b.i16) << 7) & -0x4080
    # Only of NaN all seven bits are set, so that the sum reaches the highest bit of f16's exponent, as NaN has it.
    halves = placed | ((placed + 0x80) & 0x4000)
    return b.convert(halves.bitcast(b.like(halves, b.f16)), b.f32)


def rounded(b: Builder, number: Value) -> Value:
    """i32: the code nearest to an f32 from -448 to 448, ties to even."""
    i32 = b.like(number, b.i32)
    bits = number.bitcast(i32)
    size = bits & 0x7FFFFFFF
    normal = ((size + 0x7FFFF + ((size >> 20) & 1)) >> 20) - (_REBIAS << 3)
    subnormal = (size.bitcast(number.type) * 512.0 + _ROUND).bitcast(i32) - _ROUND_BITS
    least = int.from_bytes(struct.pack(">f", _LEAST), "big")
    return b.select(size < least, subnormal, normal) | ((bits >> 24) & 0x80)
