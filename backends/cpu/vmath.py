"""Elementary functions on f32 vectors of any number of lanes (or scalars), without calls.

Errors are the largest seen against float64 over dense samples of all exponents, in units in the last place, with and
without fused multiply-add:

| function | ulp | | function | ulp |
|---|---|---|---|---|
| exp | 1.0 | | tanh | 1.3 |
| exp2 | 1.0 | | erf | 1.1 |
| expm1 | 2.4 | | pow | 0.51 |
| log | 0.8 | | rsqrt | 1.5 |
| log2 | 1.4 | | sqrt | 0.5 |
| log1p | 2.3 | | floor, ceil | 0 |

Infinities, NaN, zeros and denormals give what IEEE 754 recommends; overflow gives infinity, underflow denormals, zero.
"""

from __future__ import annotations

from collections.abc import Sequence

from moec.backends.cpu.builder import Builder
from moec.backends.cpu.values import Value

INF = float("inf")
NAN = float("nan")
_ROUND = 12582912.0  # 1.5 * 2^23: adding it leaves the nearest integer in the low bits of the mantissa
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4  # the high part has 9 bits: its products with exponents are exact


def polynomial(b: Builder, x: Value, coefficients: Sequence[float]) -> Value:
    """Horner's rule, highest power first."""
    total = x.same(coefficients[0])
    for coefficient in coefficients[1:]:
        total = b.fma(total, x, x.same(coefficient))
    return total


def _nearest(x: Value) -> Value:
    """The nearest integer as a float, for |x| < 2^22."""
    return (x + _ROUND) - _ROUND


def _integers(b: Builder, x: Value) -> Value:
    """As i32 lanes."""
    return b.convert(x, b.i32)


def _power_of_two(b: Builder, exponent: Value, like: Value) -> Value:
    """2^exponent for -126 <= exponent <= 127."""
    return ((exponent + 127) << 23).bitcast(like.type)


def _scale(b: Builder, x: Value, exponent: Value) -> Value:
    """x * 2^exponent, rounded once, for a whole number as a float; NaN if either is."""
    if b.variant.has_scale and x.lanes % b.variant.lanes == 0:
        count = x.lanes // b.variant.lanes
        pairs = zip(b.cut(x, count), b.cut(exponent, count), strict=True)
        return b.concatenate([_scale_native(b, *pair) for pair in pairs])
    whole = _integers(b, b.select(exponent.is_nan(), exponent.same(0.0), exponent))
    half = whole.arithmetic_shift(1)  # in two steps, so that the result may be denormal or infinite
    return x * _power_of_two(b, half, x) * _power_of_two(b, whole - half, x)


def _scale_native(b: Builder, x: Value, exponent: Value) -> Value:
    every, as_rounded = b.constant(b.i16, -1), b.constant(b.i32, 4)
    return b.intrinsic("llvm.x86.avx512.mask.scalef.ps.512", x.type, x, exponent, x, every, as_rounded)


def _copysign(b: Builder, magnitude: Value, sign: Value) -> Value:
    return b.intrinsic("llvm.copysign", magnitude.type, magnitude, sign)


def absolute(b: Builder, x: Value) -> Value:
    return b.intrinsic("llvm.fabs", x.type, x)


def _clamp(b: Builder, x: Value, low: float, high: float) -> Value:
    """NaN stays: `minimum` and `maximum` give their second operand for it."""
    return b.maximum(x.same(low), b.minimum(x.same(high), x))


_EXP = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)


def _exp_reduced(b: Builder, r: Value) -> Value:
    """e^r for |r| <= ln(2)/2 (Cephes expf)."""
    return b.fma(polynomial(b, r, _EXP), r * r, r) + 1.0


def exp(b: Builder, x: Value) -> Value:
    bounded = _clamp(b, x, -105.0, 89.0)
    n = b.fma(bounded, x.same(1.44269504088896341), x.same(_ROUND)) - _ROUND
    r = b.fma(n, x.same(-_LN2_LOW), b.fma(n, x.same(-_LN2_HIGH), bounded))
    return _scale(b, _exp_reduced(b, r), n)


def exp2(b: Builder, x: Value) -> Value:
    bounded = _clamp(b, x, -151.0, 129.0)
    n = _nearest(bounded)
    return _scale(b, _exp_reduced(b, (bounded - n) * 0.693147180559945309), n)


def expm1(b: Builder, x: Value) -> Value:
    """Kahan's: the rounding of e^x cancels between numerator and denominator."""
    e = exp(b, x)
    small = (e - 1.0) * x / log(b, e)
    ordinary = b.select(absolute(b, x) < 0.5, small, e - 1.0)
    return b.select(e.equals(1.0), x, ordinary)


_LOG = (
    7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1,
    2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
)  # fmt: skip


def _split(b: Builder, x: Value) -> tuple[Value, Value]:
    """(m, e) with x = (1 + m) * 2^e and sqrt(1/2) <= 1 + m < sqrt(2), for positive finite x, denormals too."""
    tiny = x < 1.17549435e-38
    normal = b.select(tiny, x * 8388608.0, x)
    bits = normal.bitcast(b.like(x, b.i32))
    # Subtracting the bits of sqrt(1/2) makes the exponent field change where the mantissa crosses it.
    offset = bits - 0x3F3504F3
    exponent = offset.arithmetic_shift(23)
    mantissa = ((offset & 0x007FFFFF) + 0x3F3504F3).bitcast(x.type)
    e = b.convert(exponent, b.f32) - b.select(tiny, x.same(23.0), x.same(0.0))
    return mantissa - 1.0, e


def _log_limits(b: Builder, x: Value, result: Value) -> Value:
    result = b.select(x.equals(INF), x, result)
    result = b.select(x.equals(0.0), x.same(-INF), result)
    return b.select(x >= 0.0, result, x.same(NAN))


def log(b: Builder, x: Value) -> Value:
    """Cephes logf."""
    m, e = _split(b, x)
    square = m * m
    tail = polynomial(b, m, _LOG) * m * square
    tail = b.fma(e, x.same(_LN2_LOW), tail)
    tail = b.fma(square, x.same(-0.5), tail)
    return _log_limits(b, x, b.fma(e, x.same(_LN2_HIGH), m + tail))


def log2(b: Builder, x: Value) -> Value:
    m, e = _split(b, x)
    square = m * m
    tail = b.fma(square, x.same(-0.5), polynomial(b, m, _LOG) * m * square)
    # log2(e) = 1 + 0.44269504...: the large part of the product stays exact.
    fraction = b.fma(m, x.same(0.44269504088896341), tail * 0.44269504088896341) + tail + m
    return _log_limits(b, x, fraction + e)


def log1p(b: Builder, x: Value) -> Value:
    """Kahan's: the rounding of 1 + x cancels between numerator and denominator."""
    u = x + 1.0
    ratio = log(b, u) * (x / (u - 1.0))
    result = b.select(u.equals(1.0), x, ratio)
    return b.select(u.equals(INF), u, b.select(u.equals(0.0), x.same(-INF), result))


def sqrt(b: Builder, x: Value) -> Value:
    return b.intrinsic("llvm.sqrt", x.type, x)


def rsqrt(b: Builder, x: Value) -> Value:
    return 1.0 / sqrt(b, x)


def floor(b: Builder, x: Value) -> Value:
    """In arithmetic that every variant has; SSE2 has no rounding instruction and LLVM would call libm."""
    truncated = b.convert(_integers(b, _clamp(b, x, -8388608.0, 8388608.0)), b.f32)
    lower = b.select(truncated > x, truncated - 1.0, truncated)
    return b.select(absolute(b, x) < 8388608.0, _copysign_zero(b, lower, x), x)


def ceil(b: Builder, x: Value) -> Value:
    return -floor(b, -x)


def _copysign_zero(b: Builder, rounded: Value, x: Value) -> Value:
    return b.select(rounded.equals(0.0), _copysign(b, rounded, x), rounded)


_TANH = (-5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1)


def tanh(b: Builder, x: Value) -> Value:
    """Cephes tanhf: an odd polynomial near zero, 1 - 2 / (e^2|x| + 1) elsewhere."""
    t = absolute(b, x)
    square = x * x
    near = b.fma(polynomial(b, square, _TANH) * square, x, x)
    far = 1.0 - 2.0 / (exp(b, t + t) + 1.0)
    return b.select(t < 0.625, near, _copysign(b, far, x))


_ERF_NEAR = (-5.96761703e-4, 4.99119423e-3, -2.67681349e-2, 1.12819925e-1, -3.76125336e-1, 1.28379166e-1)


def erf(b: Builder, x: Value) -> Value:
    """A minimax polynomial below 0.92, 1 - e^p(|x|) above (after N. Juffa)."""
    t = absolute(b, x)
    square = x * x
    near = b.fma(polynomial(b, square, _ERF_NEAR), x, x)
    t = b.minimum(x.same(4.0), t)
    high = b.fma(x.same(-1.72853470e-5), t, x.same(3.83197126e-4))
    low = b.fma(x.same(-3.88396438e-3), t, x.same(2.42546219e-2))
    p = b.fma(high, t * t, low)
    for coefficient in (-1.06777877e-1, -6.34846687e-1, -1.28717512e-1):
        p = b.fma(p, t, x.same(coefficient))
    far = 1.0 - exp(b, b.fma(p, t, -t))
    return b.select(absolute(b, x) > 0.921875, _copysign(b, far, x), near)


_LOG_TERMS = tuple(2.0 / odd for odd in range(15, 0, -2))
_EXP_TERMS = (1 / 3628800, 1 / 362880, 1 / 40320, 1 / 5040, 1 / 720, 1 / 120, 1 / 24, 1 / 6, 0.5, 1.0, 1.0)


def power(b: Builder, x: Value, y: Value) -> Value:
    """x^y, worked out in f64, because an error of log(x) grows by the size of the result's exponent."""
    magnitude = absolute(b, x)
    m, e = _split(b, magnitude)
    wide = b.convert(m, b.f64)
    s = wide / (wide + 2.0)
    logarithm = b.fma(b.convert(e, b.f64), wide.same(0.693147180559945309), polynomial(b, s * s, _LOG_TERMS) * s)
    z = b.convert(y, b.f64) * logarithm
    z = b.maximum(z.same(-110.0), b.minimum(z.same(90.0), z))
    n = b.convert(_nearest(b.convert(z, b.f32) * 1.44269504088896341), b.f64)
    fraction = polynomial(b, b.fma(n, z.same(-0.693147180559945309), z), _EXP_TERMS)
    steps = b.convert(b.select(z.is_nan(), z.same(0.0), n), b.i64)
    result = b.convert(fraction * ((steps + 1023) << 52).bitcast(z.type), b.f32)
    return _power_limits(b, x, y, magnitude, result)


def _power_limits(b: Builder, x: Value, y: Value, magnitude: Value, result: Value) -> Value:
    floor_y = floor(b, y)
    whole = floor_y.equals(y)
    odd = whole & floor(b, y * 0.5).differs(y * 0.5)
    grows = (magnitude > 1.0) ^ (y < 0.0)
    extreme = b.select(grows, x.same(INF), x.same(0.0))
    edge = magnitude.equals(INF) | magnitude.equals(0.0) | absolute(b, y).equals(INF)
    result = b.select(edge, extreme, result)
    result = b.select(magnitude.equals(1.0), x.same(1.0), result)
    result = b.select(odd, _copysign(b, result, x), result)
    result = b.select((x < 0.0) & (magnitude < INF) & (whole ^ True), x.same(NAN), result)
    result = b.select(x.is_nan() | y.is_nan(), x + y, result)
    return b.select(y.equals(0.0) | x.equals(1.0), x.same(1.0), result)
