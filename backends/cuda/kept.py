"""What of a layer's parameters is kept on a device: floats as they are, and codes with scales of quantised ones.

Parameters that a layer quantises itself (`moe.quantize`) are there as codes, under the parameters' own numbers; where
only some experts are quantised, the others are there.  Scales, and codes of some experts, come behind all parameters,
in the order of these.  Codes and scales that are given have their own numbers, too (`moec.artifact.cuda.on_device` says
the same of a manifest).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch_mlir import ir

from moec.artifact.cuda import codes_of, codes_shape, others, scales_of, scales_shape
from moec.backends.base import unsupported
from moec.backends.cpu.layer import Layer, Tensor
from moec.backends.cpu.parameters import parts
from moec.backends.cpu.values import byte_width
from moec.backends.cuda.matmul.codes import quantised_here
from moec.backends.cuda.shares import Experts, shares
from moec.dialect.formats import format_of
from moec.formats import FORMATS


@dataclass(frozen=True)
class Kept:
    """A tensor on the device.

    name       as messages have it
    parameter  whose values it holds
    experts    those of its experts; None: all
    form       "floats" (or whatever the parameter is), "codes" or "scales"
    """

    name: str
    element: str
    dims: tuple[int, ...]
    parameter: str
    experts: Experts = None
    form: str = "floats"

    @property
    def bytes(self) -> int:
        return byte_width(ir.Type.parse(self.element)) * math.prod(self.dims)


def kept(layer: Layer) -> tuple[Kept, ...]:
    """Every tensor, by number.  Raises Unsupported for a parameter that is quantised in several ways."""
    made, given = _quantised(layer), _given(layer)
    found, behind = [], []
    for tensor in layer.parameters:
        name, dims, element = tensor.name, _dims(tensor), str(tensor.type.element_type)
        some = sorted((experts for experts in made.get(name, {}) if experts is not None), key=lambda one: one[0])
        if some:
            rest = others(dims[0], some)
            found.append(Kept(name, element, (len(rest), *dims[1:]), name, rest))
            for experts in some:
                codes, scales = _coded(name, made[name][experts], (len(experts), *dims[1:]), experts)
                behind += [codes, scales]
        elif name in made:
            codes, scales = _coded(name, made[name][None], dims, None)
            found.append(codes)
            behind.append(scales)
        else:
            found.append(Kept(name, element, given.get(name, dims), name))
    return (*found, *behind)


def _coded(name: str, op: ir.Operation, dims: tuple[int, ...], experts: Experts) -> tuple[Kept, Kept]:
    """The codes and the scales that an operation makes of a parameter, or of some experts, of this shape."""
    format = ir.StringAttr(op.attributes["format"]).value
    type_ = ir.RankedTensorType(op.results[1].type)
    groups = int(type_.get_dim_size(2))
    shape = scales_shape(dims, None if groups == 1 else dims[2] // groups)
    own = name if experts is None else codes_of(name)
    return (
        Kept(own, FORMATS[format].element, codes_shape(dims, format), name, experts, "codes"),
        Kept(scales_of(name), str(type_.element_type), shape, name, experts, "scales"),
    )


def _dims(tensor: Tensor) -> tuple[int, ...]:
    return tuple(int(tensor.type.get_dim_size(axis)) for axis in range(tensor.type.rank))


def _quantised(layer: Layer) -> dict[str, dict[Experts, ir.Operation]]:
    """What quantises each parameter, by its name and experts."""
    names = {tensor.value: tensor.name for tensor in layer.parameters}
    found: dict[str, dict[Experts, ir.Operation]] = {}
    for op in (op.operation for op in layer.operations if op.operation.name == "moe.quantize"):
        for share in shares(op.operands[0]):
            name = names[share.parameter]
            known = found.setdefault(name, {})
            if share.experts in known:
                alike = _how(known[share.experts]) == _how(op)
            else:
                alike = not known or (share.experts is not None and None not in known and _apart(share.experts, known))
            if not alike:
                raise unsupported("cuda", op, f"`{name}` is quantised in several ways")
            known[share.experts] = op
    return found


def _apart(experts: tuple[int, ...], known: Mapping[Experts, ir.Operation]) -> bool:
    return all(set(experts).isdisjoint(one or ()) for one in known)


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


def of_layer(layer: Layer, tensors: Sequence[Kept]) -> dict[tuple[ir.Value, Experts, str], int]:
    """The numbers of what a function's parameters are kept as: by parameter, experts and form."""
    numbers = {(one.parameter, one.experts, one.form): number for number, one in enumerate(tensors)}
    values = {tensor.name: tensor.value for tensor in layer.parameters}
    return {(values[name], *key): number for (name, *key), number in numbers.items() if name in values}
