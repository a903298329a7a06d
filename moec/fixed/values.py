"""A layer's weights, gathered by what they do: from tensors by name to linears in float64, and to their codes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moec.errors import WeightsError
from moec.fixed.interface import Group, Interface, Source
from moec.fixed.spec import Layer, Weights
from moec.formats import FORMATS, Codes

Reals = NDArray[np.float64]
Integers = NDArray[np.int64]
Tensors = Mapping[str, NDArray[Any]]
"""A layer's parameters and buffers by name, floats as f32 or f64."""

_FIXED16 = Codes(-32767, 32767, 32767)


@dataclass(frozen=True)
class Linear:
    """A linear as its layer means it, and as codes.

    weight  f64 [N, K], what is computed with where numbers are real
    codes   int64 [N, K]
    scale   f64 [N]: codes times it are near `weight`, or equal where the layer was given codes
    bias    f64 [N]; zeros where there is none
    """

    weight: Reals
    codes: Integers
    scale: Reals
    bias: Reals


@dataclass(frozen=True)
class Expert:
    """`gate` is None where it is not gated."""

    gate: Linear | None
    up: Linear
    down: Linear


@dataclass(frozen=True)
class Values:
    """All of a layer's linears; `selection` is [E], None where there is none."""

    gates: tuple[Linear, ...]
    selection: Reals | None
    experts: tuple[Expert, ...]
    shared: tuple[Expert, ...]


def gather(layer: Layer, interface: Interface, tensors: Tensors) -> Values:
    """The linears that `tensors` hold.  Raises WeightsError where numbers are not finite, or codes not in range."""
    wide = layer.weights is Weights.FIXED16
    router = _linear(interface.router, tensors, None, _FIXED16 if wide else FORMATS["int8"])
    form = _FIXED16 if wide else FORMATS[layer.weights.value]
    tasks = range(layer.router.tasks)
    return Values(
        gates=tuple(_part(router, task, layer.experts) for task in tasks),
        selection=None if interface.selection is None else _finite(interface.selection, tensors),
        experts=_group(interface.routed, tensors, form),
        shared=tuple(expert for group in interface.shared for expert in _group(group, tensors, form)),
    )


def quantise(weights: NDArray[Any], form: Codes) -> tuple[Integers, Reals]:
    """Codes and scales of the channels of a matrix [N, K], by the rule of docs/ir.md: in f32, ties to even."""
    single = weights.astype(np.float32)
    sizes = np.abs(single)
    if form.divisor:
        scale = sizes.max(axis=1) / np.float32(form.divisor)
    else:  # a running sum adds up in ascending order
        scale = (np.cumsum(sizes.astype(np.float64), axis=1)[:, -1] / weights.shape[1]).astype(np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        quotients = np.rint(single / scale[:, None])
    codes = np.nan_to_num(np.clip(quotients, form.lowest, form.highest), nan=0.0)
    return codes.astype(np.int64), scale.astype(np.float64)


def _group(group: Group, tensors: Tensors, form: Codes) -> tuple[Expert, ...]:
    return tuple(
        Expert(
            None if group.gate is None else _linear(group.gate, tensors, number, form),
            _linear(group.up, tensors, number, form),
            _linear(group.down, tensors, number, form),
        )
        for number in range(group.count)
    )


def _linear(source: Source, tensors: Tensors, number: int | None, form: Codes) -> Linear:
    def read(name: str) -> Reals:
        whole = _finite(name, tensors)
        return whole if number is None else whole[number]

    weight = read(source.weight)
    bias = np.zeros(len(weight)) if source.bias is None else read(source.bias)
    if source.scale is None:
        return Linear(weight, *quantise(weight, form), bias)
    scale = read(source.scale)
    if (scale < 0).any():
        raise WeightsError(f"{source.scale} has scales below 0; hardware multiplies with positive ones")
    codes = weight.astype(np.int64)
    if codes.min() < form.lowest or codes.max() > form.highest:
        raise WeightsError(f"{source.weight} has codes outside of {form.lowest} to {form.highest}")
    return Linear(codes * scale[:, None], codes, scale, bias)


def _part(linear: Linear, number: int, size: int) -> Linear:
    mine = slice(number * size, (number + 1) * size)
    return Linear(linear.weight[mine], linear.codes[mine], linear.scale[mine], linear.bias[mine])


def _finite(name: str, tensors: Tensors) -> Reals:
    found: Reals = np.asarray(tensors[name], np.float64)
    if not np.isfinite(found).all():
        raise WeightsError(f"{name} holds numbers that are not finite")
    return found
