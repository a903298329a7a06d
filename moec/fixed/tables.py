"""Tables of functions, read with linear interpolation: 512 entries of 36 bits, one block RAM of 18 Kbit."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from moec.fixed.spec import Activation

STEP_BITS = 9
ENTRIES = 1 << STEP_BITS
ENTRY_BITS = 18
SIGMOID_RANGE_BITS = 4
"""The table of the sigmoid goes to 2^4."""


@dataclass(frozen=True)
class Table:
    """A function at 512 points and the steps between them, int64 [512] both.

    base   its values, unsigned, below 2^18, with two more fraction bits than what is read from the table
    step   to the next point's value, signed, 18 bits
    """

    base: NDArray[np.int64]
    step: NDArray[np.int64]

    def words(self) -> NDArray[np.uint64]:
        """The table as it lies in memory, [512]: `base` in bits 0 to 17, `step` in bits 18 to 35."""
        mask = (1 << ENTRY_BITS) - 1
        return (self.base | ((self.step & mask) << ENTRY_BITS)).astype(np.uint64)


def tabulate(function: Callable[[float], float], last: float) -> Table:
    """Of a function from [0, last] to [0, 2^18]; the last point is the end of the last step."""
    points = [round(function(last * i / ENTRIES)) for i in range(ENTRIES + 1)]
    values = np.array(points, np.int64)
    return Table(values[:-1], np.diff(values))


def delta(activation: Activation, x: float) -> float:
    """relu(x) - act(x), which is an even function for both GELU (by erf) and SiLU; of x >= 0."""
    if activation is Activation.RELU:
        return 0.0
    if activation is Activation.GELU:
        return 0.5 * x * math.erfc(x / math.sqrt(2.0))
    return x / (1.0 + math.exp(x)) if x < 700.0 else 0.0


def activation_table(activation: Activation, scale: float) -> Table:
    """Of an activation whose argument and result are 16-bit numbers times `scale`, at least 2^-15.

    Entries are in quarters of the scale.  The result's error is at most 0.75 + 410 * `scale` of its LSBs: rounding of
    entries and of the result, and interpolation (a step is 64 * `scale`; the second derivative is at most 0.8).
    """
    return tabulate(lambda x: 4.0 * delta(activation, x) / scale, 32768.0 * scale)


def _exp2(x: float) -> float:
    return (math.exp2(x) - 1.0) * (1 << ENTRY_BITS)


def _sigmoid(x: float) -> float:
    return (1 << ENTRY_BITS) / (1.0 + math.exp(x))


@cache
def exp2_table() -> Table:
    """2^x - 1 for x in [0, 1), with 18 fraction bits."""
    return tabulate(_exp2, 1.0)


@cache
def sigmoid_table() -> Table:
    """The sigmoid of -x for x in [0, 16), with 18 fraction bits."""
    return tabulate(_sigmoid, float(1 << SIGMOID_RANGE_BITS))
