"""What a CUDA device has of a layer's weights: as kernels read them, and as operations of its functions see them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from bench.cuda.steps.record import Function
from bench.cuda.steps.scalars import NoReference, Tensor
from moec.artifact.cuda import others
from moec.artifact.manifest import Manifest
from moec.runtime.cuda.packed import unpacked_codes, unpacked_scales
from moec.runtime.module import Layer


def held(layer: Layer) -> list[Tensor]:
    """All of `moec.artifact.cuda.on_device`: what launches take."""
    named, coded = dict(layer.named_parameters()), layer._store.coded
    weights = [named[weight.name] for weight in layer.manifest.parameters]
    return [one.detach() for one in (coded.filled(weights) if coded is not None else weights)]


def seen_by_operations(function: Function, manifest: Manifest, tensors: Sequence[Tensor]) -> dict[int, Tensor]:
    """The weights, by the values that they are: codes [E, N, K] and scales, of the layer's own making [E, N, G]; some
    experts of floats.

    tensors  all of `moec.artifact.cuda.on_device`
    """
    return _given(function, manifest, tensors) | _made(function, manifest, tensors)


def _given(function: Function, manifest: Manifest, tensors: Sequence[Tensor]) -> dict[int, Tensor]:
    """The layer's parameters as `state_dict` has them; of those that it quantises nobody asks for the values."""
    codes = manifest.quantised.codes if manifest.quantised else {}
    owners = manifest.quantised.owners if manifest.quantised else {}
    shapes = {weight.name: weight.shape for weight in manifest.parameters}
    found: dict[int, Tensor] = {}
    for value, weight, tensor in zip(function.parameters, manifest.parameters, tensors, strict=False):
        name, whole = weight.name, tensor
        if name in codes:
            whole = unpacked_codes(tensor, codes[name].format, weight.shape[2])
        elif name in owners:
            whole = unpacked_scales(tensor, shapes[owners[name]][1])
        found[value] = whole
    return found


def _made(function: Function, manifest: Manifest, tensors: Sequence[Tensor]) -> dict[int, Tensor]:
    """Codes and scales that the layer made of the weights that it quantises itself."""
    coded = _by_expert(function, manifest, tensors)
    found: dict[int, Tensor] = {}
    for op in function.operations:
        if op.name == "moe.quantize":
            parts = [coded[one] for one in _parts(function, op.operands[0])]
            found[op.results[0]], found[op.results[1]] = (torch.stack(one) for one in zip(*parts, strict=True))
    return found | _others(function, manifest, tensors)


def _by_expert(
    function: Function, manifest: Manifest, tensors: Sequence[Tensor]
) -> dict[tuple[int, int], tuple[Tensor, Tensor]]:
    """Codes [N, K] and scales [N, G] by parameter and number of the expert."""
    made = manifest.quantised.made_while_packing if manifest.quantised else {}
    behind = iter(tensors[len(manifest.parameters) :])
    found: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
    for value, weight, own in zip(function.parameters, manifest.parameters, tensors, strict=False):
        count, columns, inner = weight.shape if weight.name in made else (0, 0, 0)
        for how in made.get(weight.name, ()):
            codes = unpacked_codes(own if how.experts is None else next(behind), how.format, inner)
            scales = unpacked_scales(next(behind), columns)
            experts = range(count) if how.experts is None else how.experts
            for place, expert in enumerate(experts):
                found[value, expert] = codes[place], scales[place].reshape(columns, -1)
    return found


def _others(function: Function, manifest: Manifest, tensors: Sequence[Tensor]) -> dict[int, Tensor]:
    """Some experts of a parameter that is given as floats, of those that stay floats."""
    given = {*manifest.quantised.codes, *manifest.quantised.owners} if manifest.quantised else set()
    made = manifest.quantised.made_while_packing if manifest.quantised else {}
    numbers = {value: number for number, value in enumerate(function.parameters)}
    found: dict[int, Tensor] = {}
    for op in function.operations:
        if op.name != "tensor.extract_slice" or op.operands[0] not in numbers:
            continue
        number = numbers[op.operands[0]]
        weight = manifest.parameters[number]
        if weight.name in given:
            continue
        floats = others(weight.shape[0], (how.experts for how in made.get(weight.name, ())))
        wanted = [expert for _, expert in _parts(function, op.results[0])]
        if set(wanted) <= set(floats):
            found[op.results[0]] = torch.stack([tensors[number][floats.index(expert)] for expert in wanted])
    return found


def _parts(function: Function, value: int) -> list[tuple[int, int]]:
    """The experts of parameters that a value puts behind each other on their first axis."""
    maker, shape = function.makers.get(value), function.values[value].shape or ()
    if maker is None:
        return [(value, expert) for expert in range(shape[0])]
    if maker.name == "tensor.extract_slice" and not any(maker.attributes["static_offsets"][1:]):
        first = maker.attributes["static_offsets"][0]
        return _parts(function, maker.operands[0])[first : first + shape[0]]
    if maker.name != "tensor.concat" or maker.attributes["dim"] != 0:
        raise NoReference(f"{maker.name} that is quantised")
    return [part for operand in maker.operands for part in _parts(function, operand)]
