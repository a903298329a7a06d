"""What codes of a layer are worth, as calibration finds it, in a file of JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from moec.errors import MoecError
from moec.fixed.data import record
from moec.fixed.spec import Layer

SCHEMA = 1
CALIBRATION = "calibration.json"
"""Where `moec calibrate` writes, in a project's folder.  It is not taken by itself: weights may be others by then."""
MAX_BYTES = 16 * 2**20


class CalibrationError(MoecError):
    """Scales are missing, or those of another layer, or samples are none."""


@dataclass(frozen=True)
class Error:
    """How far a layer in fixed-point arithmetic is from the layer in float64.

    tokens     how many it was measured on
    relative   ‖difference‖ / ‖result‖, Frobenius norms
    agreeing   the same over tokens for which the same experts are chosen
    experts    share of these tokens
    largest    the largest difference of one number, over the root mean square of the result's numbers
    clamped_x  share of the input's numbers that lie outside of what codes hold
    clamped_y  share of the result's numbers at the end of what codes hold
    """

    tokens: int
    relative: float
    agreeing: float
    experts: float
    largest: float
    clamped_x: float
    clamped_y: float


@dataclass(frozen=True)
class Scales:
    """What one code is worth.

    x       of the input
    first   of pre-activations, 16 bits
    second  of what activations are multiplied with, 16 bits; None where no expert is gated
    hidden  of the hidden layer of each routed expert
    common  of each shared expert's
    y       of the result and of experts' results, 16 bits
    """

    layer: str
    x: float
    first: float
    second: float | None
    hidden: tuple[float, ...]
    common: tuple[float, ...]
    y: float


@dataclass(frozen=True)
class Calibration:
    """Scales, and what error they gave on the samples that they come from; `checked` on other samples, if any."""

    scales: Scales
    error: Error
    checked: Error | None
    schema: int = SCHEMA

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1) + "\n"


def read_calibration(text: bytes, layer: Layer, where: str) -> Calibration:
    """The contents of a file, checked against the layer.  Raises CalibrationError; `where` names the file."""
    try:
        if len(text) > MAX_BYTES:
            raise ValueError("it is too large")
        data: Any = json.loads(text)
        if isinstance(data, dict) and isinstance(data.get("schema"), int) and data["schema"] > SCHEMA:
            raise ValueError(f"it has schema {data['schema']}, and this moec reads up to {SCHEMA}")
        found = record(Calibration, data, "calibration")
        check(found.scales, layer)
    except (ValueError, RecursionError) as error:
        raise CalibrationError(f"{where} is not a calibration of {layer.name}: {error}") from error
    return found


def check(scales: Scales, layer: Layer) -> None:
    """Raises ValueError where scales are not those of such a layer."""
    if scales.layer != layer.name:
        raise ValueError(f"it is of the layer {scales.layer!r}")
    if (len(scales.hidden), len(scales.common)) != (layer.experts, layer.shared):
        raise ValueError(f"the layer has {layer.experts} routed and {layer.shared} shared experts")
    gated = layer.routed.gated or (layer.common is not None and layer.common.gated)
    if gated != (scales.second is not None):
        raise ValueError("`second` is given exactly where an expert is gated")
    for one in (scales.x, scales.first, scales.second or 1.0, *scales.hidden, *scales.common, scales.y):
        if not 1e-30 <= one <= 1e30:
            raise ValueError("every scale lies between 1e-30 and 1e30")
