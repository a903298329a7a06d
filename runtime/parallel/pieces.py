"""Pieces of a layer: what one rank computes between exchanges, each a compiled layer of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from moec.runtime.calls import run
from moec.runtime.module import Layer
from moec.runtime.packing.weights import adopted


@dataclass(frozen=True)
class Tensor:
    """An input or output of a piece: `(P, *row)`, P the same for all of them."""

    name: str
    row: tuple[int, ...]
    dtype: torch.dtype


class Piece(Protocol):
    """What a rank computes at once.

    route     the layer's inputs -> index i32 [T, K] (-1: none), weight f32 [T, K]
    capacity  index, weight of the whole batch -> kept i32 [T, K]
    experts   rows [P, d], source i32 [P, 1], slot i32 [P, 1] (-1: nothing), weight f32 [P, 1] -> out f32 [P, N]
    shared    the layer's inputs -> every term of shared experts f32 [T, N]
    collect   rows f32 [T, K, N], places i32 [T, K], the terms, the layer's inputs -> the layer's outputs
    """

    @property
    def inputs(self) -> tuple[Tensor, ...]: ...

    @property
    def outputs(self) -> tuple[Tensor, ...]: ...

    def __call__(self, inputs: Sequence[torch.Tensor], outputs: Sequence[torch.Tensor]) -> None:
        """Compute `outputs`, which exist already, from `inputs`; all contiguous, in the order of the fields above."""
        ...


@dataclass(frozen=True)
class Pieces:
    """The pieces of a layer; None for what it does not have."""

    route: Piece
    experts: Piece
    collect: Piece
    shared: Piece | None = None
    capacity: Piece | None = None


class Compiled:
    """A piece that was compiled; `layer` has its weights."""

    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        signature, manifest = layer._signature, layer.manifest
        self.inputs = tuple(Tensor(spec.name, spec.row, spec.dtype) for spec in signature.inputs)
        self._kernel = layer._store.kernel
        self.outputs = tuple(
            Tensor(tensor.name, row, dtype)
            for tensor, (row, dtype) in zip(manifest.outputs, self._kernel.outputs, strict=True)
        )

    def __call__(self, inputs: Sequence[torch.Tensor], outputs: Sequence[torch.Tensor]) -> None:
        code, store = self._kernel, self.layer._store
        packed, weights = self.layer._current()
        if packed is None:  # other weights stand in for this one call
            packed = adopted(code, weights).buffer
        run(code, packed, inputs, outputs, store.statistics, timed=False)  # a piece is not the whole call
