"""What a layer made of the weights that it quantises itself, as the operations of its functions see it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from bench.cuda.steps.record import Function
from bench.cuda.steps.scalars import NoReference, Tensor
from moec.artifact.manifest import Manifest
from moec.runtime.cuda.packed import unpacked_codes, unpacked_scales


def quantised(function: Function, manifest: Manifest, tensors: Sequence[Tensor]) -> dict[int, Tensor]:
    """Codes [E, N, K] and scales [E, N, G], by the values that they are.

    tensors  all of `moec.artifact.cuda.on_device`
    """
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
            codes.append(unpacked_codes(tensors[number].cpu(), how[names[number]].format, inner))
            one = unpacked_scales(scales_of[names[number]].cpu(), columns)
            scales.append(one if one.dim() == 3 else one.unsqueeze(2))
        device = tensors[0].device
        found[op.results[0]], found[op.results[1]] = (torch.cat(one).to(device) for one in (codes, scales))
    return found


def _parts(function: Function, value: int) -> list[int]:
    """The parameters that a value puts behind each other on their first axis."""
    maker = function.makers.get(value)
    if maker is None:
        return [value]
    if maker.name != "tensor.concat" or maker.attributes["dim"] != 0:
        raise NoReference(f"{maker.name} that is quantised")
    return [part for operand in maker.operands for part in _parts(function, operand)]
