"""f16 (IEEE 754 binary16) to f32 and back, where the processor has no instruction for it.

The bits are those of `vcvtph2ps` and `vcvtps2ph`: to nearest even, beyond 65504 to infinity, subnormal numbers as they
are, whatever the thread's flags say of denormal f32 (none is met here but f32 that round to zero).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from moec.backends.cpu.values import Value

if TYPE_CHECKING:
    from moec.backends.cpu.builder import Builder

_REBIAS = (127 - 15) << 23
_SMALLEST_NORMAL = (127 - 14) << 23
"""2^-14 as the bits of a f32."""
_BEYOND = (127 + 16) << 23
"""2^16."""
_INFINITY = 0x7F800000
_ONE_HALF = (127 - 1) << 23
"""0.5, whose last bit as f32 weighs as much as that of a subnormal f16, 2^-24: adding it rounds there."""


def widened(b: Builder, value: Value) -> Value:
    """f16 lanes, or one, as f32."""
    bits = b.convert(value.bitcast(b.like(value, b.i16)), b.i32, signed=False)
    placed = (bits & 0x7FFF) << 13
    normal = placed + _REBIAS
    # Subnormal numbers: as if they had a leading one, which is then taken away, exactly.
    float_ = b.like(value, b.f32)
    one_more = (placed + _SMALLEST_NORMAL).bitcast(float_)
    subnormal = (one_more - 2.0**-14).bitcast(bits.type)
    finite = b.select(placed < 1 << 23, subnormal, normal)
    magnitude = b.select(placed >= 31 << 23, normal + _REBIAS, finite)
    return (magnitude | ((bits & 0x8000) << 16)).bitcast(float_)


def rounded(b: Builder, value: Value) -> Value:
    """f32 lanes, or one, as the nearest f16; NaN keeps the upper bits that say which."""
    bits = value.bitcast(b.like(value, b.i32))
    magnitude = bits & 0x7FFFFFFF
    normal = (magnitude + ((magnitude >> 13) & 1) + (0xFFF - _REBIAS)) >> 13
    subnormal = (magnitude.bitcast(value.type) + 0.5).bitcast(bits.type) - _ONE_HALF
    finite = b.select(magnitude < _SMALLEST_NORMAL, subnormal, normal)
    nan = ((magnitude >> 13) & 0x3FF) | 0x7E00
    beyond = b.select(magnitude > _INFINITY, nan, 0x7C00)
    found = b.select(magnitude >= _BEYOND, beyond, finite) | ((bits >> 16) & 0x8000)
    return b.convert(found, b.i16).bitcast(b.like(value, b.f16))
