"""Pieces of a layer that is trained: each gives what its backward needs, and gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import torch

from moec.runtime import gradients
from moec.runtime.module import Layer
from moec.runtime.parallel.pieces import Compiled, Piece, Pieces
from moec.runtime.step import Step


@dataclass(frozen=True)
class Made:
    """What a piece's forward gave: outputs and loss tensors by name, and what its backward reads."""

    outputs: Mapping[str, torch.Tensor]
    losses: Mapping[str, torch.Tensor]
    saved: Sequence[torch.Tensor]


class TrainedPiece(Piece, Protocol):
    """A piece with its derivative.  `parameters` are its tensors that gradients are computed for, in order."""

    @property
    def parameters(self) -> tuple[str, ...]: ...

    def forward(self, inputs: Sequence[torch.Tensor], parameters: Sequence[torch.Tensor]) -> Made:
        """Compute; `inputs` as in a call."""
        ...

    def backward(
        self,
        inputs: Sequence[torch.Tensor],
        parameters: Sequence[torch.Tensor],
        saved: Sequence[torch.Tensor],
        seeds: Mapping[str, torch.Tensor],
    ) -> Mapping[str, torch.Tensor]:
        """The gradients of inputs and parameters of floats, by name.

        seeds  the gradients of outputs and loss tensors, by name; zeros for those that are not there
        """
        ...


@dataclass(frozen=True)
class TrainedPieces(Pieces):
    """The pieces of a layer that is trained; a capacity has no derivative."""

    route: TrainedPiece
    experts: TrainedPiece
    collect: TrainedPiece
    shared: TrainedPiece | None = None

    @property
    def trained(self) -> dict[str, TrainedPiece]:
        """Those that have parameters or gradients, by name."""
        found = {"route": self.route, "experts": self.experts, "shared": self.shared, "collect": self.collect}
        return {name: piece for name, piece in found.items() if piece is not None}


class CompiledTraining(Compiled):
    """A piece that was compiled for training; `layer` has its weights as ordinary tensors."""

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        self._step = cast(Step, layer._step)
        gradients.operator()
        self._code = (layer._artifact, layer._variant)
        self.parameters = tuple(weight.name for weight in layer.manifest.parameters)

    def forward(self, inputs: Sequence[torch.Tensor], parameters: Sequence[torch.Tensor]) -> Made:
        step = self._step
        results = torch.ops.moec.forward(list(inputs), list(parameters), *self._code)
        ends = len(step.outputs), len(step.outputs) + len(step.loss_tensors)
        return Made(
            {one.name: result for one, result in zip(step.outputs, results, strict=False)},
            {one.name: result for one, result in zip(step.loss_tensors, results[ends[0] :], strict=False)},
            results[ends[1] :],
        )

    def backward(
        self,
        inputs: Sequence[torch.Tensor],
        parameters: Sequence[torch.Tensor],
        saved: Sequence[torch.Tensor],
        seeds: Mapping[str, torch.Tensor],
    ) -> Mapping[str, torch.Tensor]:
        step, tokens = self._step, len(inputs[0])
        given = []
        for result in (step.results[i] for i in step.seeds):
            seed = seeds.get(result.name)
            if seed is None:
                seed = torch.zeros(result.shape(tokens), dtype=result.dtype, device="cpu")
            given.append(seed.to(result.dtype).contiguous())
        found = torch.ops.moec.backward(list(inputs), list(parameters), list(saved), given, *self._code)
        names = [*(one.name for one in self.inputs), *self.parameters]
        return {names[i]: gradient for i, gradient in zip(step.gradients, found, strict=True)}
