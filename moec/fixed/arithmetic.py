"""The arithmetic of fixed-point layers, on integers: every implementation gives these bits (docs/fpga-arithmetic.md).

All functions take and give NumPy int64 arrays; none of them can overflow within the limits of `moec.fixed.limits`.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from moec.fixed.spec import Router, Score
from moec.fixed.tables import SIGMOID_RANGE_BITS, STEP_BITS, Table, exp2_table, sigmoid_table

Integers = NDArray[np.int64]

MULTIPLIER_BITS = 17
"""Bits of the unsigned mantissa that a requantisation multiplies with: the signed 18-bit port of a DSP takes it."""
MOST_SHIFT = 47
WIDE = 16
"""Bits of pre-activations, of experts' results and of the layer's result."""
LOGIT_BITS = 24
LOGIT_FRACTION = 16
SCORE_FRACTION = 16
"""Fraction bits of scores and of weights before the router's scale."""
GUARD_BITS = 9
"""Further fraction bits of the powers that a softmax adds up."""
GATE_BITS = 18
"""Bits of a signed weight that an expert's result is multiplied with."""


def clamp(values: Integers, bits: int) -> Integers:
    """Into the symmetric range of `bits` bits, -(2^(bits-1) - 1) .. 2^(bits-1) - 1."""
    most = (1 << (bits - 1)) - 1
    return np.clip(values, -most, most)


def requantise(values: Integers, multiplier: Integers | int, shift: Integers | int, bits: int) -> Integers:
    """round(values * multiplier / 2^shift) with halves up, clamped to `bits` bits; shift is 1 to 47."""
    scaled = values * np.int64(multiplier) if isinstance(multiplier, int) else values * multiplier
    places = np.asarray(shift, np.int64)
    return clamp((scaled + (np.int64(1) << (places - 1))) >> places, bits)


def multiplier(real: float) -> tuple[int, int]:
    """The mantissa m below 2^17 and the shift s for which m / 2^s is nearest to `real`, which is not negative.

    A number above (2^17 - 1) / 2 becomes that: what it multiplies is clamped all the same.
    """
    if real <= 0.0:
        return 0, 1
    shift = min(MULTIPLIER_BITS - math.frexp(real)[1], MOST_SHIFT)
    if shift < 1:
        return (1 << MULTIPLIER_BITS) - 1, 1
    mantissa = round(math.ldexp(real, shift))
    if mantissa == 1 << MULTIPLIER_BITS:
        mantissa, shift = mantissa >> 1, shift - 1
    return (mantissa, shift) if shift else ((1 << MULTIPLIER_BITS) - 1, 1)


def interpolate(table: Table, position: Integers, fraction_bits: int) -> Integers:
    """Between the entries of a table, whose number stands in the bits of `position` above `fraction_bits`.

    The result has `fraction_bits` fraction bits more than the table's entries.
    """
    index = position >> fraction_bits
    fraction = position & ((1 << fraction_bits) - 1)
    found: Integers = (table.base[index] << fraction_bits) + table.step[index] * fraction
    return found


def rounded(values: Integers, shift: int) -> Integers:
    """values / 2^shift to the nearest, halves up."""
    return (values + (1 << (shift - 1))) >> shift


def activate(values: Integers, table: Table | None) -> Integers:
    """relu(r) - delta(|r|) for 16-bit pre-activations r; without a table relu(r).  The result has 16 bits too."""
    positive = np.maximum(values, 0)
    if table is None:
        return positive
    fraction_bits = WIDE - 1 - STEP_BITS
    return positive - rounded(interpolate(table, np.abs(values), fraction_bits), fraction_bits + 2)


def powers(logits: Integers) -> tuple[Integers, Integers]:
    """The integer part n of logits to base 2, and 2^(logit - n) in [2^25, 2^26): 16 + 9 fraction bits."""
    fraction_bits = LOGIT_FRACTION - STEP_BITS
    fraction = logits & ((1 << LOGIT_FRACTION) - 1)
    part = rounded(interpolate(exp2_table(), fraction, fraction_bits), fraction_bits + 2)
    return logits >> LOGIT_FRACTION, ((1 << SCORE_FRACTION) + part) << GUARD_BITS


def shifted(values: Integers, places: Integers) -> Integers:
    """values / 2^places rounded down, for any number of places from 0."""
    return values >> np.minimum(places, 63)


def softmax_sum(logits: Integers) -> Integers:
    """The sum of the powers of `logits` [T, E], in one pass from expert 0 on.

    It is relative to the largest integer part so far: where that grows, the sum is shifted down.
    Returns [T], of which 2^25 is a power of two whose exponent is the largest integer part.
    """
    whole, part = powers(logits)
    most = whole[:, 0].copy()
    total = part[:, 0].copy()
    for expert in range(1, logits.shape[1]):
        above = np.maximum(whole[:, expert] - most, 0)
        most = most + above
        total = shifted(total, above) + shifted(part[:, expert], most - whole[:, expert])
    return total


def sigmoid(logits: Integers) -> Integers:
    """The sigmoid of logits with 16 fraction bits, in 0 .. 2^16."""
    fraction_bits = SIGMOID_RANGE_BITS + LOGIT_FRACTION - STEP_BITS
    size = np.minimum(np.abs(logits), (1 << (SIGMOID_RANGE_BITS + LOGIT_FRACTION)) - 1)
    below = rounded(interpolate(sigmoid_table(), size, fraction_bits), fraction_bits + 2)
    return np.where(logits >= 0, (1 << SCORE_FRACTION) - below, below)


def divide(part: Integers, whole: Integers) -> Integers:
    """part / whole with 16 fraction bits, halves up; 0 where `whole` is 0.  `part` lies in 0 .. whole."""
    quotient = ((part << SCORE_FRACTION) + (whole >> 1)) // np.maximum(whole, 1)
    return np.where(whole > 0, quotient, 0)


def gate_fraction(router: Router) -> int:
    """Fraction bits of the weights that experts' results are multiplied with: fewer where their scale is above 1."""
    bits = 13 if router.score is Score.IDENTITY else SCORE_FRACTION
    return bits - max(0, math.ceil(math.log2(router.scale)))


def gate_multiplier(router: Router) -> tuple[int, int]:
    """What makes weights with `gate_fraction` bits of scores with 16, the router's scale among it; (2^16, 16) is 1."""
    return multiplier(router.scale * 2.0 ** (gate_fraction(router) - SCORE_FRACTION))
