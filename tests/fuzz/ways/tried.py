"""What a way is given, and what several of them do with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch_mlir import ir

import moec
from moec.runtime.module import Layer
from tests.bits import same_bits
from tests.fuzz.inference import Packed
from tests.fuzz.layers import Sample
from tests.fuzz.tensors import Named, inputs


@dataclass(frozen=True)
class Tried:
    """A layer whose kernels are right.

    layer  its kernels, in guarded memory, with weights
    graph  its IR, for the oracle
    """

    sample: Sample
    artifact: Path
    folder: Path
    layer: Packed
    graph: ir.Module

    def module(self, keep_weights: bool = False) -> Layer:
        """The layer as users have it, for inference, with the same weights."""
        module = moec.load(self.artifact, variant=self.layer.kernel.variant, keep_weights=keep_weights)
        module.load_state_dict(self.layer.given)
        return module.eval()

    def tokens(self, count: int) -> Named:
        """A value for each input; others for another `count`."""
        seed = self.sample.seed + 3 * count + 1
        return inputs(self.layer.manifest, count, self.sample.routing, torch.Generator().manual_seed(seed))


def require_same(found: torch.Tensor, wanted: torch.Tensor, what: str) -> None:
    """Raises AssertionError."""
    assert same_bits(found, wanted), f"{what}: other bits than the kernels give alone"
