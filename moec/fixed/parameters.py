"""The numbers of a layer as hardware reads them: codes of weights, multipliers, shifts, biases; and the scales."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moec.fixed.tables import Table

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Linear:
    """round((bias + codes @ x) * multiplier / 2^shift), clamped.

    codes       int64 [N, K], in the range of the weights' format
    multiplier  int64 [N], 0 to 2^17 - 1
    shift       int64 [N], 1 to 47
    bias        int64 [N], in units of the accumulator; zeros where the linear has none
    """

    codes: Integers
    multiplier: Integers
    shift: Integers
    bias: Integers


@dataclass(frozen=True)
class Expert:
    """One expert: `gate` is None where it is not gated; `up` is then what the activation is applied to.

    multiplier, shift   of the hidden layer: from act(up), or act(gate) * up, to its codes
    """

    gate: Linear | None
    up: Linear
    down: Linear
    multiplier: int
    shift: int


@dataclass(frozen=True)
class Gate:
    """A router's linear, one for each task.

    selection  int64 [E], added to scores (16 fraction bits) for the choice, 24 bits; None where there is none
    """

    linear: Linear
    selection: Integers | None


@dataclass(frozen=True)
class Parameters:
    """All of a layer's numbers.

    gates       one for each task
    experts     the routed experts
    shared      the shared experts
    activation  the table of the experts' activation; None with ReLU
    x_scale     what a code of the input is worth
    y_scale     what a code of the result is worth
    """

    gates: tuple[Gate, ...]
    experts: tuple[Expert, ...]
    shared: tuple[Expert, ...]
    activation: Table | None
    x_scale: float
    y_scale: float
