"""What of a layer's parameters is kept on a device: floats as they are, and codes with scales of quantised ones.

Parameters that a layer quantises itself (`moe.quantize`) are there as codes, under the parameters' own numbers; their
scales come behind all parameters, in the order of these.  Codes and scales that are given have their own numbers, too
(`moec.artifact.cuda.on_device` says the same of a manifest).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch_mlir import ir

from moec.artifact.cuda import codes_shape, scales_of, scales_shape
from moec.backends.base import unsupported
from moec.backends.cpu.layer import Layer, Tensor
from moec.backends.cpu.parameters import parts
from moec.backends.cpu.values import byte_width
from moec.backends.cuda.matmul.codes import quantised_here
from moec.dialect.formats import format_of
from moec.formats import FORMATS


@dataclass(frozen=True)
class Kept:
    """A tensor on the device: the parameter `name`, or its scales."""

    name: str
    element: str
    dims: tuple[int, ...]

    @property
    def bytes(self) -> int:
        return byte_width(ir.Type.parse(self.element)) * math.prod(self.dims)


def kept(layer: Layer) -> tuple[Kept, ...]:
    """Every tensor, by number.  Raises Unsupported for a parameter that is quantised in several ways."""
    made, given = _quantised(layer), _given(layer)
    found, scales = [], []
    for tensor in layer.parameters:
        dims = _dims(tensor)
        element = str(tensor.type.element_type)
        if tensor.name in made:
            type_ = ir.RankedTensorType(made[tensor.name].results[1].type)
            groups = int(type_.get_dim_size(2))
            shape = scales_shape(dims, None if groups == 1 else dims[2] // groups)
            scales.append(Kept(scales_of(tensor.name), str(type_.element_type), shape))
            format = ir.StringAttr(made[tensor.name].attributes["format"]).value
            element, dims = FORMATS[format].element, codes_shape(dims, format)
        elif tensor.name in given:
            dims = given[tensor.name]
        found.append(Kept(tensor.name, element, dims))
    return (*found, *scales)


def _dims(tensor: Tensor) -> tuple[int, ...]:
    return tuple(int(tensor.type.get_dim_size(axis)) for axis in range(tensor.type.rank))


def numbers(tensors: Sequence[Kept]) -> dict[str, int]:
    """The number of each by its name."""
    return {tensor.name: number for number, tensor in enumerate(tensors)}


def _quantised(layer: Layer) -> dict[str, ir.Operation]:
    """What quantises each parameter, by its name."""
    names = {tensor.value: tensor.name for tensor in layer.parameters}
    found: dict[str, ir.Operation] = {}
    for op in (op.operation for op in layer.operations if op.operation.name == "moe.quantize"):
        for part in parts(op.operands[0]):
            name = names[part.parameter]
            if name in found and _how(found[name]) != _how(op):
                raise unsupported("cuda", op, f"`{name}` is quantised in several ways")
            found[name] = op
    return found


def _given(layer: Layer) -> dict[str, tuple[int, ...]]:
    """The shapes of codes and scales that are given, by their names."""
    tensors = {tensor.value: tensor for tensor in layer.parameters}
    found: dict[str, tuple[int, ...]] = {}
    for op in (op.operation for op in layer.operations if op.operation.name == "moe.dequantize"):
        codes, scales = op.operands
        how = format_of(op.results[0])
        if how is None or quantised_here(codes):
            continue
        owners = [tensors[part.parameter] for part in parts(codes)]
        found |= {tensor.name: codes_shape(_dims(tensor), how.name) for tensor in owners}
        for owner, part in zip(owners, parts(scales), strict=True):
            inner = _dims(owner)[2]
            group = None if how.groups == 1 else inner // how.groups
            found[tensors[part.parameter].name] = scales_shape(_dims(owner), group)
    return found


def _how(op: ir.Operation) -> tuple[str, str, int]:
    scales = ir.RankedTensorType(op.results[1].type)
    return str(op.attributes["format"]), str(scales.element_type), int(scales.get_dim_size(2))


def of_layer(layer: Layer, tensors: Sequence[Kept]) -> tuple[dict[ir.Value, int], dict[ir.Value, int]]:
    """The numbers of a function's parameters, and of the scales of those that are quantised."""
    number = numbers(tensors)
    parameters: Sequence[Tensor] = layer.parameters
    own = {tensor.value: number[tensor.name] for tensor in parameters}
    scales = {t.value: number[scales_of(t.name)] for t in parameters if scales_of(t.name) in number}
    return own, scales
