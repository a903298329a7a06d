"""Weights that a CUDA device has in another form than `state_dict`: codes and scales that kernels read.

A layer makes them of weights that it quantises itself, and packs them where they are given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch

from moec.artifact.cuda import others
from moec.artifact.manifest import Manifest
from moec.artifact.quantised import Stored
from moec.errors import WeightsError
from moec.formats import FORMATS
from moec.runtime.cuda.moving import places
from moec.runtime.cuda.packed import packed_codes, packed_scales, unpacked_codes, unpacked_scales
from moec.runtime.dtypes import TORCH_DTYPES
from moec.runtime.placeholder import stands_in
from moec.runtime.quantize import quantize

_Form = tuple[Callable[[torch.Tensor], torch.Tensor], Callable[[torch.Tensor], torch.Tensor]]
"""What packs a weight, and what takes it back; both of some experts at a time."""


class CodedWeights:
    """The weights that placeholders stand for, by number; their memory is `tensors`, in the order of `on_device`.

    _made    how the layer quantises weights, or some of their experts
    _forms   how weights that are given as codes and scales are packed
    _held    codes, packed weights, or the experts that are not quantised
    _behind  codes of some experts (None: `_held` has those of all) and scales, for each entry of `_made`
    """

    def __init__(self, manifest: Manifest, tensors: Sequence[torch.Tensor]) -> None:
        self._manifest = manifest
        self._made, self._forms = _quantised(manifest), _packed(manifest)
        self._held = {number: tensors[number] for number in (*self._made, *self._forms)}
        behind = iter(tensors[len(manifest.parameters) :])
        self._behind = {
            number: [(None if how.experts is None else next(behind), next(behind)) for how in hows]
            for number, hows in self._made.items()
        }

    @classmethod
    def of(cls, manifest: Manifest, device: torch.device, tensors: Sequence[torch.Tensor]) -> CodedWeights | None:
        """None where all weights are on `device` as they are given."""
        there = None if device.type == "cpu" else cls(manifest, tensors)
        return there if there is not None and there._held else None

    def __contains__(self, number: int) -> bool:
        return number in self._held

    def __deepcopy__(self, memo: dict[int, object]) -> CodedWeights:
        device = next(iter(self._held.values())).device
        twin = CodedWeights(self._manifest, places(self._manifest, device))
        for number in self._held:
            twin.take(number, self)
        return twin

    def give(self, number: int, value: torch.Tensor) -> None:
        """Keep `value`, on whatever device it is: packed there, or quantised on the CPU with the bits of packing."""
        value, held, hows = value.detach(), self._held[number], self._made.get(number)
        if hows is None:
            pack = self._forms[number][0]
            # one expert at a time, so that what lies between stays small
            for place, one in zip(held.split(1), value.split(1), strict=True):
                place.copy_(pack(one))
            return
        for how, (some, scales_place) in zip(hows, self._behind[number], strict=True):
            part = value if how.experts is None else _experts(value, how.experts)
            codes, scales = quantize(part.cpu(), how.format, group=how.group, scale=TORCH_DTYPES[how.scale])
            (held if some is None else some).copy_(packed_codes(codes, how.format))
            scales_place.copy_(packed_scales(scales))
        if hows[0].experts is not None:
            held.copy_(_experts(value, others(len(value), (how.experts for how in hows))))

    def value(self, number: int) -> torch.Tensor:
        """A new tensor, on the device, with what `give` was given; of weights that are packed only."""
        weight, held = self._manifest.parameters[number], self._held[number]
        unpack = self._forms[number][1]
        made = torch.empty(weight.shape, dtype=TORCH_DTYPES[weight.dtype], device=held.device)
        for place, one in zip(made.split(1), held.split(1), strict=True):
            place.copy_(unpack(one))
        return made

    def take(self, number: int, other: CodedWeights) -> None:
        """What `other` holds of a weight."""
        for place, one in zip(self._all(number), other._all(number), strict=True):
            place.copy_(one)

    def _all(self, number: int) -> list[torch.Tensor]:
        return [self._held[number], *self._extra(number)]

    def _extra(self, number: int) -> list[torch.Tensor]:
        """What stands behind all weights, in order."""
        return [one for pair in self._behind.get(number, ()) for one in pair if one is not None]

    def filled(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """All of `on_device`, where `tensors` are the layer's weights.

        Raises WeightsError where a tensor stands in for a weight that is kept in another form: nothing would read it.
        """
        for number in self._held:
            if not stands_in(tensors[number]):
                name = self._manifest.parameters[number].name
                how = "quantised" if number in self._made else "packed"
                raise WeightsError(
                    f"{name!r} is {how} when it is given, and another tensor cannot stand in for it on a CUDA device. "
                    "Give it with `layer.load_state_dict(...)`, and call the layer after `with layer.unpacked():`, not "
                    "in it."
                )
        weights = [self._held.get(number, tensor) for number, tensor in enumerate(tensors)]
        return weights + [one for number in self._made for one in self._extra(number)]


def _experts(value: torch.Tensor, numbers: Sequence[int]) -> torch.Tensor:
    return value.index_select(0, torch.tensor(numbers, dtype=torch.int64, device=value.device))


def _quantised(manifest: Manifest) -> dict[int, tuple[Stored, ...]]:
    """How each weight is kept that the layer quantises, by its number."""
    how = manifest.quantised.made_while_packing if manifest.quantised else {}
    return {number: how[one.name] for number, one in enumerate(manifest.parameters) if one.name in how}


def _packed(manifest: Manifest) -> dict[int, _Form]:
    """How small codes and scales of groups are packed that are given, by their numbers."""
    if manifest.quantised is None:
        return {}
    codes, owners = manifest.quantised.codes, manifest.quantised.owners
    shapes = {one.name: one.shape for one in manifest.parameters}
    found: dict[int, _Form] = {}
    for number, one in enumerate(manifest.parameters):
        owner = owners.get(one.name, "")
        if one.name in codes and FORMATS[codes[one.name].format].bits < 8:
            format = codes[one.name].format
            back = partial(unpacked_codes, format=format, inner=one.shape[2])
            found[number] = partial(packed_codes, format=format), back
        elif owner and codes[owner].group is not None:
            found[number] = packed_scales, partial(unpacked_scales, columns=shapes[owner][1])
    return found
