"""Scales of a layer from samples of its input, and how far the layer with them is from the layer in float64.

Numbers of 8 bits are clipped where that makes their mean squared error smallest; numbers of 16 bits have twice the room
that the samples need.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from moec.fixed import arithmetic, real, reference
from moec.fixed.convert import convert, rows_to_codes
from moec.fixed.scales import Calibration, CalibrationError, Error, Scales
from moec.fixed.spec import Activation, Layer
from moec.fixed.values import Expert, Values

Integers = NDArray[np.int64]
Reals = NDArray[np.float64]

ROOM = 2.0
"""How many times as large as in the samples numbers of 16 bits may become."""
FEW_ROWS = 32
"""An expert with fewer rows than this among the samples is calibrated on rows that others chose, too."""
_CLIPS = np.linspace(0.2, 1.0, 33)


def calibrate(
    layer: Layer,
    values: Values,
    x: Reals,
    tasks: Integers | None = None,
    other: tuple[Reals, Integers | None] | None = None,
) -> Calibration:
    """Scales from the samples x [T, d] and their tasks [T]; `other` samples are measured too.

    Raises CalibrationError for samples that are none.
    """
    for rows, numbers in [(x, tasks)] if other is None else [(x, tasks), other]:
        _require_samples(layer, rows, numbers)
    scales = find(layer, values, x, tasks)
    checked = None if other is None else measure(layer, values, scales, *other)
    return Calibration(scales, measure(layer, values, scales, x, tasks), checked)


def find(layer: Layer, values: Values, x: Reals, tasks: Integers | None) -> Scales:
    """The scales alone."""
    largest = {"first": 0.0, "second": 0.0, "result": 0.0}
    hidden: dict[int, float] = {}

    def observe(what: str, expert: int, rows: Reals) -> None:
        if what in largest:
            largest[what] = max(largest[what], float(np.abs(rows).max(initial=0.0)))
        elif len(rows) >= FEW_ROWS or len(rows) == len(x):
            hidden[expert] = best_scale(rows, layer.rows)

    result = real.forward(layer, values, x, tasks, observe)
    for number, expert in _experts(values):
        if number not in hidden:
            real.apply(layer.routed.activation, expert, x, number, observe)
    floor = 1.0 if layer.routed.activation is not Activation.RELU else 0.0  # tables begin at steps of 2^-15
    gated = any(expert.gate is not None for _, expert in _experts(values))
    return Scales(
        layer=layer.name,
        x=best_scale(x, layer.rows),
        first=_roomy(max(largest["first"], floor / ROOM)),
        second=_roomy(largest["second"]) if gated else None,
        hidden=tuple(hidden[n] for n in range(layer.experts)),
        common=tuple(hidden[layer.experts + n] for n in range(layer.shared)),
        y=_roomy(max(largest["result"], float(np.abs(result.y).max()))),
    )


def measure(layer: Layer, values: Values, scales: Scales, x: Reals, tasks: Integers | None) -> Error:
    """The error of the layer in fixed-point arithmetic on rows x, against float64 with the weights as they are."""
    parameters = convert(layer, values, scales)
    rows = rows_to_codes(layer, x, scales.x)
    codes = reference.forward(layer, parameters, rows, tasks)
    found = reference.routing(layer, parameters, rows, tasks).experts
    exact = real.forward(layer, values, x, tasks)
    difference = codes * scales.y - exact.y
    same = (np.sort(found, axis=1) == np.sort(exact.experts, axis=1)).all(axis=1)
    usual = float(np.sqrt(np.square(exact.y).mean()))
    most = (1 << (layer.rows - 1)) - 0.5
    return Error(
        tokens=len(x),
        relative=_relative(difference, exact.y),
        agreeing=_relative(difference[same], exact.y[same]),
        experts=float(same.mean()),
        largest=float(np.abs(difference).max()) / usual if usual else 0.0,
        clamped_x=float((np.abs(x) > most * scales.x).mean()),
        clamped_y=float((np.abs(codes) == (1 << (arithmetic.WIDE - 1)) - 1).mean()),
    )


def _relative(difference: Reals, exact: Reals) -> float:
    norm = float(np.linalg.norm(exact))
    return float(np.linalg.norm(difference)) / norm if norm else 0.0


def _experts(values: Values) -> Iterator[tuple[int, Expert]]:
    return enumerate((*values.experts, *values.shared))


def best_scale(numbers: Reals, bits: int) -> float:
    """The scale of codes that hold `numbers` with the least mean squared error."""
    largest = float(np.abs(numbers).max(initial=0.0))
    if largest == 0.0:
        return 1.0
    if bits >= arithmetic.WIDE:
        return _roomy(largest)
    most = (1 << (bits - 1)) - 1
    sample = numbers.ravel()[:: max(1, numbers.size // (1 << 18))]
    scales = largest * _CLIPS / most
    errors = [float(np.square(np.clip(np.rint(sample / s), -most, most) * s - sample).sum()) for s in scales]
    return float(scales[int(np.argmin(errors))])


def _roomy(largest: float) -> float:
    return ROOM * largest / ((1 << (arithmetic.WIDE - 1)) - 1) if largest else 1.0


def _require_samples(layer: Layer, x: Reals, tasks: Integers | None) -> None:
    if x.ndim != 2 or x.shape[1] != layer.width or not len(x):
        raise CalibrationError(
            f"samples of {layer.name} are rows of {layer.width} numbers, at least one, not {x.shape}"
        )
    if not np.isfinite(x).all():
        raise CalibrationError("the samples hold numbers that are not finite")
    if (tasks is not None) != (layer.router.tasks > 1):
        raise CalibrationError(
            f"samples of {layer.name} come {'with' if tasks is None else 'without'} a task for each row"
        )
    if tasks is not None and (tasks.shape != (len(x),) or tasks.min() < 0 or tasks.max() >= layer.router.tasks):
        raise CalibrationError(f"tasks are a number from 0 to {layer.router.tasks - 1} for each row")
