"""Pieces of a layer that is trained: each gives what its backward needs, and gradients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from moec.artifact.container import Artifact
from moec.errors import GradientError
from moec.runtime import gradients
from moec.runtime.module import Layer
from moec.runtime.native import kernel, library
from moec.runtime.parallel.pieces import Compiled, Piece, Pieces


@dataclass(frozen=True)
class Made:
    """What a piece's forward gave: outputs and loss tensors by name, and what its backward reads."""

    outputs: Mapping[str, torch.Tensor]
    losses: Mapping[str, torch.Tensor]
    saved: Sequence[torch.Tensor]


class TrainedPiece(Piece, Protocol):
    """A piece with its derivative.  `parameters` are its weights, in order.

    Gradients differ from what they are of in this: that of `out` of `experts` is in the rows' order, as `rows` is, and
    pair p reads the row `source[p]`; that of its `rows` is in the order of pairs.
    """

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

        seeds  the gradients of outputs and loss tensors, by name; zeros for those that are not there; those of terms of
               shared experts and of `out` in the dtype of the layer's result
        """
        ...


@dataclass(frozen=True)
class TrainedPieces(Pieces):
    """The pieces of a layer that is trained.

    A capacity has no derivative, and the gradient of a result is that of all that `collect` adds up.

    cut  names of parameters of which ranks have parts, as their hidden dimension is cut
    """

    route: TrainedPiece
    experts: TrainedPiece
    shared: TrainedPiece | None = None
    cut: frozenset[str] = frozenset()

    @property
    def trained(self) -> dict[str, TrainedPiece]:
        """Those that have parameters or gradients, by name."""
        found = {"route": self.route, "experts": self.experts, "shared": self.shared}
        return {name: piece for name, piece in found.items() if piece is not None}


class CompiledTraining(Compiled):
    """A piece that was compiled for training; `layer` has its weights as ordinary tensors.

    One at whose inputs and weights no gradient arrives has no derivative: a router that looks its experts up.
    """

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        self._step = layer._step
        gradients.operator()
        self._code = (layer._artifact, layer._variant)
        self.parameters = tuple(weight.name for weight in layer.manifest.parameters)

    def forward(self, inputs: Sequence[torch.Tensor], parameters: Sequence[torch.Tensor]) -> Made:
        step = self._step
        if step is None:
            tokens = len(inputs[0])
            made = {one.name: torch.empty((tokens, *one.row), dtype=one.dtype, device="cpu") for one in self.outputs}
            self(inputs, list(made.values()))
            return Made(made, {}, ())
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
        if step is None:
            return {}
        given = []
        for result in (step.results[i] for i in step.seeds):
            seed = seeds.get(result.name)
            if seed is None:
                seed = torch.zeros(result.shape(tokens), dtype=result.dtype, device="cpu")
            given.append(seed.contiguous())
        found = torch.ops.moec.backward(list(inputs), list(parameters), list(saved), given, *self._code)
        names = [*(one.name for one in self.inputs), *self.parameters]
        return {names[i]: gradient for i, gradient in zip(step.gradients, found, strict=True)}


def trained_pieces(artifact: Artifact, loaded: Mapping[str, Layer], run: Pieces) -> TrainedPieces:
    """What trains a layer.

    artifact  holds `shared_training` and `collect_training` where training adds shared experts up in its own way
    loaded    the pieces with the layer's weights, by name; `run` as inference runs them

    Raises GradientError for an artifact that was compiled for inference only.
    """
    if loaded["experts"]._step is None:
        raise GradientError(gradients.for_inference_only(artifact.manifest.layer))

    def special(name: str) -> Layer | None:
        return code_of(artifact.piece(name)) if name in artifact.pieces else loaded.get(name.removesuffix("_training"))

    shared, collect = special("shared_training"), special("collect_training")
    return TrainedPieces(
        route=CompiledTraining(loaded["route"]),
        experts=CompiledTraining(loaded["experts"]),
        collect=run.collect if collect is None else Compiled(collect),
        shared=None if shared is None else CompiledTraining(shared),
        capacity=run.capacity,
        cut=frozenset(_cut(artifact, loaded)),
    )


def _cut(artifact: Artifact, loaded: Mapping[str, Layer]) -> Iterator[str]:
    """Names of parameters that a piece has parts of; that experts in slots are fewer does not count."""
    whole = {weight.name: weight.shape for weight in artifact.manifest.parameters}
    for piece, layer in loaded.items():
        first = int(piece == "experts")
        for weight in layer.manifest.parameters:
            if weight.shape[first:] != whole[weight.name][first:]:
                yield weight.name


def code_of(piece: Artifact, training: bool = False) -> Layer:
    """A piece as a layer without weights."""
    code = library(piece, pinned=True)
    return Layer(kernel(code.sha256, code.supported[0]), False, training, piece.path)
