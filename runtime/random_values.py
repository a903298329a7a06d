"""Random values for weights: what `reset_parameters` gives."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from moec.artifact.manifest import Manifest, Weight
from moec.artifact.quantised import Stored
from moec.formats import FORMATS


class RandomValues:
    """Fills tensors so that the outputs of a linear are about as large as its inputs, in whatever form it is kept."""

    def __init__(self, weights: Sequence[Weight], stored: Sequence[Stored], generator: torch.Generator | None) -> None:
        self._generator = generator
        self._codes: dict[str, int] = {}
        self._scales: dict[str, float] = {}
        shapes = {weight.name: weight.shape for weight in weights}
        for one in stored:
            for name, scale in zip(one.weights, one.scales, strict=False):  # without scales these are no codes
                highest = self._codes[name] = FORMATS[one.format].highest
                deviation = (highest * (highest + 1) / 3) ** 0.5  # of whole numbers from -highest to highest
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
            highest = self._codes[weight.name]
            tensor.random_(-highest, highest + 1, generator=self._generator)
        elif weight.name in self._scales:
            middle = self._scales[weight.name]
            tensor.uniform_(0.5 * middle, 1.5 * middle, generator=self._generator)
        elif tensor.is_floating_point():
            tensor.normal_(std=(weight.shape[-1] if weight.shape else 1) ** -0.5, generator=self._generator)
        else:
            tensor.zero_()
