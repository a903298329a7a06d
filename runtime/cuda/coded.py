"""Weights that a layer quantises itself, on a CUDA device: codes and scales, and nothing else of what was given."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from moec.artifact.manifest import Manifest
from moec.artifact.quantised import Stored
from moec.errors import WeightsError
from moec.runtime.cuda.moving import places
from moec.runtime.cuda.packed import packed_codes, packed_scales
from moec.runtime.dtypes import TORCH_DTYPES
from moec.runtime.placeholder import stands_in
from moec.runtime.quantize import quantize


class CodedWeights:
    """Codes and scales of the weights with these numbers; their memory is `tensors`, in the order of `on_device`."""

    def __init__(self, manifest: Manifest, tensors: Sequence[torch.Tensor]) -> None:
        self._manifest = manifest
        self._how = _quantised(manifest)
        self._codes = {number: tensors[number] for number in self._how}
        self._scales = dict(zip(self._how, tensors[len(manifest.parameters) :], strict=True))

    @classmethod
    def of(cls, manifest: Manifest, tensors: Sequence[torch.Tensor]) -> CodedWeights | None:
        """None where the layer quantises nothing, or where `tensors` are the weights as they are given."""
        return cls(manifest, tensors) if len(tensors) > len(manifest.parameters) else None

    def __contains__(self, number: int) -> bool:
        return number in self._how

    def __deepcopy__(self, memo: dict[int, object]) -> CodedWeights:
        device = next(iter(self._scales.values())).device
        twin = CodedWeights(self._manifest, places(self._manifest, device))
        for number in self._how:
            twin.take(number, self)
        return twin

    def give(self, number: int, value: torch.Tensor) -> None:
        """Quantise `value`, on whatever device it is, as packing does: on the CPU, with the same bits."""
        how = self._how[number]
        codes, scales = quantize(value.detach().cpu(), how.format, group=how.group, scale=TORCH_DTYPES[how.scale])
        self._codes[number].copy_(packed_codes(codes, how.format))
        self._scales[number].copy_(packed_scales(scales))

    def take(self, number: int, other: CodedWeights) -> None:
        """The codes and scales that `other` has."""
        self._codes[number].copy_(other._codes[number])
        self._scales[number].copy_(other._scales[number])

    def filled(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """All of `on_device`, where `tensors` are the layer's weights.

        Raises WeightsError where a tensor stands in for one that is quantised: nothing would read it.
        """
        for number in self._how:
            if not stands_in(tensors[number]):
                name = self._manifest.parameters[number].name
                raise WeightsError(
                    f"{name!r} is quantised when it is given, and another tensor cannot stand in for it on a CUDA "
                    "device. Give it with `layer.load_state_dict(...)`, or write `prequantized = true` in its format."
                )
        weights = [self._codes.get(number, tensor) for number, tensor in enumerate(tensors)]
        return weights + list(self._scales.values())


def _quantised(manifest: Manifest) -> dict[int, Stored]:
    """How each weight is kept that the layer quantises, by its number."""
    how = manifest.quantised.made_while_packing if manifest.quantised else {}
    return {number: how[one.name] for number, one in enumerate(manifest.parameters) if one.name in how}
