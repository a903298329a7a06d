"""What a CUDA device has of a layer's weights: as kernels read them, and as operations of its functions see them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from bench.cuda.steps.record import Function
from bench.cuda.steps.scalars import NoReference, Tensor
from moec.artifact.manifest import Manifest
from moec.runtime.cuda.packed import unpacked_codes, unpacked_scales
from moec.runtime.module import Layer


def held(layer: Layer) -> list[Tensor]:
    """All of `moec.artifact.cuda.on_device`: what launches take."""
    named, coded = dict(layer.named_parameters()), layer._store.coded
    weights = [named[weight.name] for weight in layer.manifest.parameters]
    return [one.detach() for one in (coded.filled(weights) if coded is not None else weights)]


def seen_by_operations(function: Function, manifest: Manifest, tensors: Sequence[Tensor]) -> dict[int, Tensor]:
    """The weights, by the values that they are: codes [E, N, K] and scales, of the layer's own making [E, N, G].

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
    how = manifest.quantised.made_while_packing if manifest.quantised else {}
    names = [weight.name for weight in manifest.parameters]
    scales_of = dict(zip((name for name in names if name in how), tensors[len(names) :], strict=True))
    numbers = {value: number for number, value in enumerate(function.parameters)}
    found: dict[int, Tensor] = {}
    for op in function.operations:
        if op.name != "moe.quantize":
            continue
        codes, scales = [], []
        for value in _parts(function, op.operands[0]):
            number = numbers[value]
            _, columns, inner = manifest.parameters[number].shape
            codes.append(unpacked_codes(tensors[number], how[names[number]].format, inner))
            one = unpacked_scales(scales_of[names[number]], columns)
            scales.append(one if one.dim() == 3 else one.unsqueeze(2))
        found[op.results[0]], found[op.results[1]] = torch.cat(codes), torch.cat(scales)
    return found


def _parts(function: Function, value: int) -> list[int]:
    """The parameters that a value puts behind each other on their first axis."""
    maker = function.makers.get(value)
    if maker is None:
        return [value]
    if maker.name != "tensor.concat" or maker.attributes["dim"] != 0:
        raise NoReference(f"{maker.name} that is quantised")
    return [part for operand in maker.operands for part in _parts(function, operand)]
