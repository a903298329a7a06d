"""The weights of a layer in the order of another build: shared where the order is the same, else a copy."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from moec.artifact.manifest import Manifest
from moec.errors import AdaptationError
from moec.runtime.adapt.background import Run, at_once
from moec.runtime.memory import allocate
from moec.runtime.native import Kernel, layout
from moec.runtime.packing.weights import PackedWeights

_BREATH = 0.01
"""Seconds between two weights, for the memory bus to be the callers' now and then."""
_SHORT_BREATH = 0.001
_STRETCH = 0.01
"""The same between two experts, after so many seconds of work."""


def require_same_interface(base: Manifest, other: Manifest) -> None:
    """Raise AdaptationError unless whoever calls and loads the one can call and load the other."""
    for what in ("layer", "inputs", "outputs", "parameters", "statistics"):
        if getattr(base, what) != getattr(other, what):
            raise AdaptationError(f"the variant has other {what} than the layer")


@dataclass(frozen=True)
class Transferred:
    """The weights of a layer as a kernel reads them: u8, and the buffer that it reads some of them in, if any."""

    packed: torch.Tensor
    lender: torch.Tensor | None = None


def transferred(kernel: Kernel, store: PackedWeights, run: Run = at_once) -> Transferred:
    """The weights of `store` as `kernel` reads them: `store.buffer` itself where it reads the same order.

    Where it can read some of them there, only the others are packed, one expert of one weight at a time; nothing is
    written, and no page taken, for what stays where it is.  Otherwise one weight after the other is unpacked and
    packed, so that beside the new buffer there is no more than one weight.  Who changes weights meanwhile spoils the
    copy; `store.generation` tells.

    run: calls what takes long

    Raises WeightsError where the packed form does not give a weight back.
    """
    if layout(kernel).layout == layout(store.kernel).layout:
        return Transferred(store.buffer)
    packed = allocate(int(kernel.call("packed_bytes")))
    adoption = layout(kernel).adoption
    if adoption is not None and adoption.layout == layout(store.kernel).layout:
        lender, scratch = store.buffer, allocate(adoption.scratch)
        rested = time.monotonic()
        for step in range(adoption.steps):
            run(kernel.call, "adopt", step, lender, packed, scratch)
            if time.monotonic() > rested + _STRETCH:
                time.sleep(_SHORT_BREATH)
                rested = time.monotonic()
        return Transferred(packed, lender)
    for index in range(len(store.weights)):
        run(kernel.call, "pack", index, packed, run(store.value, index))
        time.sleep(_BREATH)
    return Transferred(packed)
