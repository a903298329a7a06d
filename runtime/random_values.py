"""Random values for weights: what `reset_parameters` gives."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from moec.artifact.manifest import Manifest, Weight
from moec.artifact.quantised import Stored
from moec.formats import FORMATS, Codes


class RandomValues:
    """Fills tensors so that the outputs of a linear are about as large as its inputs, in whatever form it is kept."""

    def __init__(self, weights: Sequence[Weight], stored: Sequence[Stored], generator: torch.Generator | None) -> None:
        self._generator = generator
        self._codes: dict[str, Codes] = {}
        self._scales: dict[str, float] = {}
        shapes = {weight.name: weight.shape for weight in weights}
        for one in stored:
            for name, scale in zip(one.weights, one.scales, strict=False):  # without scales these are no codes
                how = self._codes[name] = FORMATS[one.format]
                # Of numbers from -highest to highest: any, or whole ones.
                deviation = (how.highest * (how.highest + (not how.floats)) / 3) ** 0.5
                self._scales[scale] = shapes[name][-1] ** -0.5 / deviation

    @classmethod
    def of(cls, manifest: Manifest, generator: torch.Generator | None) -> RandomValues:
        """For the weights of an artifact's layer."""
        return cls(manifest.parameters, manifest.quantised.stored if manifest.quantised else (), generator)

    def fill(self, weight: Weight, tensor: torch.Tensor) -> None:
        """Write values for `weight` into `tensor`.

        Floats: normal with variance 1 / (size of the last dimension); integers: 0.  Codes are uniform over what their
        format holds, less the lowest of int4, scales uniform and positive so that code * scale has the same variance.
        """
        if weight.name in self._codes:
            self._fill_codes(self._codes[weight.name], tensor)
        elif weight.name in self._scales:
            middle = self._scales[weight.name]
            tensor.uniform_(0.5 * middle, 1.5 * middle, generator=self._generator)
        elif tensor.is_floating_point():
            tensor.normal_(std=(weight.shape[-1] if weight.shape else 1) ** -0.5, generator=self._generator)
        else:
            tensor.zero_()

    def _fill_codes(self, how: Codes, tensor: torch.Tensor) -> None:
        if not how.floats:
            tensor.random_(-how.highest, how.highest + 1, generator=self._generator)
            return
        for part in tensor:  # one expert at a time: torch draws no numbers of 8 bits
            wide = torch.empty(part.shape, dtype=torch.float32, device=part.device)
            part.copy_(wide.uniform_(-how.highest, how.highest, generator=self._generator))
