"""What one step of training takes and gives, as shapes: read off the manifest once."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from moec.artifact.manifest import Loss, Manifest, StepTensor, TokenTensor
from moec.runtime.dtypes import TORCH_DTYPES


@dataclass(frozen=True)
class Result:
    """A tensor that `forward` gives: `(rows * T, *row)`, or `row` where `rows` is 0."""

    name: str
    rows: int
    row: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, tensor: TokenTensor | StepTensor) -> Result:
        rows = tensor.rows if isinstance(tensor, StepTensor) else 1
        return cls(tensor.name, rows, tensor.row, TORCH_DTYPES[tensor.dtype])

    def shape(self, tokens: int) -> tuple[int, ...]:
        return (self.rows * tokens, *self.row) if self.rows else self.row


@dataclass(frozen=True)
class Step:
    """The results of `forward` in order (outputs, loss tensors, saved ones), and the gradients that `backward` gives.

    seeds      positions of the results whose gradients `backward` takes: outputs and loss tensors of floats
    gradients  positions, among the inputs and then the weights, of what `backward` gives the gradients of
    """

    outputs: tuple[Result, ...]
    loss_tensors: tuple[Result, ...]
    saved: tuple[Result, ...]
    losses: tuple[Loss, ...]
    seeds: tuple[int, ...]
    gradients: tuple[int, ...]

    @classmethod
    def of(cls, manifest: Manifest) -> Step | None:
        """None for a layer that was compiled for inference only."""
        training = manifest.training
        if training is None:
            return None
        outputs = tuple(map(Result.of, manifest.outputs))
        loss_tensors = tuple(Result.of(tensor) for tensor in training.step if tensor.role == "loss")
        saved = tuple(Result.of(tensor) for tensor in training.step if tensor.role == "saved")
        taken = [*(tensor.name for tensor in manifest.inputs), *(weight.name for weight in manifest.parameters)]
        return cls(
            outputs,
            loss_tensors,
            saved,
            training.losses,
            seeds=tuple(i for i, result in enumerate((*outputs, *loss_tensors)) if result.dtype.is_floating_point),
            gradients=tuple(taken.index(name) for name in training.gradients),
        )

    @property
    def results(self) -> tuple[Result, ...]:
        """Everything that `forward` gives, in order."""
        return (*self.outputs, *self.loss_tensors, *self.saved)
