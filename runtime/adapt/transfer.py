"""The weights of a layer in the order of another build: shared where the order is the same, else a copy."""

from __future__ import annotations

import time

import torch

from moec.artifact.manifest import Manifest, Variant
from moec.errors import AdaptationError
from moec.runtime.memory import allocate
from moec.runtime.native import Kernel
from moec.runtime.packing.weights import PackedWeights

_BREATH = 0.01
"""Seconds between two weights, for the memory bus to be the callers' now and then."""


def layout(kernel: Kernel) -> Variant:
    """The manifest's record of the variant that `kernel` is."""
    return kernel.library.manifest.variants[kernel.index]


def require_same_interface(base: Manifest, other: Manifest) -> None:
    """Raise AdaptationError unless whoever calls and loads the one can call and load the other."""
    for what in ("layer", "inputs", "outputs", "parameters", "statistics"):
        if getattr(base, what) != getattr(other, what):
            raise AdaptationError(f"the variant has other {what} than the layer")


def packed_for(kernel: Kernel, store: PackedWeights) -> torch.Tensor:
    """The weights of `store` as `kernel` reads them: `store.buffer` itself where it reads the same order.

    Otherwise one weight after the other is unpacked and packed, so that beside the new buffer there is no more than one
    weight.  Who changes weights meanwhile spoils the copy; `store.generation` tells.

    Raises WeightsError where the packed form does not give a weight back.
    """
    if layout(kernel).layout == layout(store.kernel).layout:
        return store.buffer
    packed = allocate(int(kernel.call("packed_bytes")))
    for index in range(len(store.weights)):
        kernel.call("pack", index, packed, store.value(index))
        time.sleep(_BREATH)
    return packed
