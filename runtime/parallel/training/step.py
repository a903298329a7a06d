"""A step of training of a layer over ranks, behind torch's autograd."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import torch

from moec.artifact.container import Artifact
from moec.artifact.manifest import Loss
from moec.artifact.parallel import Parallel
from moec.errors import GradientError
from moec.placement.lookup import Lookup
from moec.placement.table import Table
from moec.runtime.module import Layer
from moec.runtime.parallel.network import Network
from moec.runtime.parallel.pieces import Pieces
from moec.runtime.parallel.streams import Run
from moec.runtime.parallel.training import losses
from moec.runtime.parallel.training.call import TrainingCall
from moec.runtime.parallel.training.engine import TrainingEngine
from moec.runtime.parallel.training.pieces import trained_pieces
from moec.schedule.steps import Schedules


class Trainer:
    """Calls of one layer whose gradients may be asked for.

    mean  parameters get the mean of the ranks' gradients instead of the sum, as beside DistributedDataParallel
    runs  the last run forward and the last one backward
    """

    def __init__(self, layer: str, engine: TrainingEngine, network: Network, wanted: Sequence[Loss]) -> None:
        self.layer, self.engine, self.network, self.losses = layer, engine, network, tuple(wanted)
        self.mean = False
        self.runs: dict[str, Run] = {}

    @classmethod
    def of(
        cls,
        artifact: Artifact,
        parallel: Parallel,
        loaded: Mapping[str, Layer],
        schedules: Schedules,
        run: Pieces,
        network: Network,
    ) -> Trainer:
        """For a layer that is spread as `parallel` says, and whose pieces are `loaded`, and `run` in inference."""
        manifest = artifact.manifest
        pieces = trained_pieces(artifact, loaded, run)
        inputs = [tensor.name for tensor in manifest.inputs]
        engine = TrainingEngine(parallel, schedules, pieces, inputs, network)
        return cls(manifest.layer, engine, network, manifest.training.losses if manifest.training else ())

    def weights(self, loaded: Mapping[str, Layer]) -> dict[str, list[torch.Tensor]]:
        """The weights that each piece reads, as they are now."""
        found = {}
        for name, piece in self.engine.pieces.trained.items():
            layer = loaded[name]
            named = {one.name: held for one, held in zip(layer.manifest.parameters, layer._tensors(), strict=True)}
            found[name] = [named[parameter] for parameter in piece.parameters]
        return found

    @property
    def _batches(self) -> int:
        """How many ranks have tokens of their own."""
        seat = self.engine.seat
        return seat.mesh.ranks // seat.shares

    def __call__(
        self,
        inputs: Mapping[str, torch.Tensor],
        parameters: Mapping[str, Sequence[torch.Tensor]],
        table: Table,
        lookup: Lookup,
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor | None]:
        """Outputs by name, and the sum of the auxiliary losses over the batch of all ranks; None: there are none.

        Every rank must ask for the gradient of what it got, or none may: backward is a call of all ranks, too.
        """
        given = _Given(self, tuple(inputs), {name: len(held) for name, held in parameters.items()}, table, lookup)
        weights = [one for held in parameters.values() for one in held]
        results = _Step.apply(given, *inputs.values(), *weights)  # type: ignore[no-untyped-call]
        found = dict(zip(given.names, results, strict=True))
        outputs = {tensor.name: found.pop(tensor.name) for tensor in self.engine.pieces.collect.outputs}
        if not self.losses:
            return outputs, None
        with self.network.call(f"{self.layer}, its losses"):
            everyone = self.network.group(self.engine.seat.mesh.names)
            scale = self._batches if self.mean else 1
            return outputs, losses.total(self.losses, found, everyone, scale)

    def forward(
        self, inputs: Mapping[str, torch.Tensor], weights: Mapping[str, Sequence[torch.Tensor]], given: _Given
    ) -> TrainingCall:
        with self.network.call(self.layer):
            call, self.runs["forward"] = self.engine.forward(inputs, weights, given.table, given.lookup)
        return call

    def backward(
        self, call: TrainingCall, dy: torch.Tensor, seeds: Mapping[str, torch.Tensor]
    ) -> tuple[dict[str, torch.Tensor], dict[str, dict[str, torch.Tensor]]]:
        """The gradients of inputs, and of parameters by piece."""
        factor = 1 / self._batches if self.mean else 1.0
        with self.network.call(f"{self.layer}, backward"):
            back, self.runs["backward"] = self.engine.backward(call, dy, seeds, factor)
        return back.tokens, back.parameters


class _Given:
    """What a step is given besides tensors; `names` are those of its results."""

    def __init__(
        self, trainer: Trainer, inputs: tuple[str, ...], counts: Mapping[str, int], table: Table, lookup: Lookup
    ) -> None:
        self.trainer, self.inputs, self.counts = trainer, inputs, counts
        self.table, self.lookup = table, lookup
        self.names: tuple[str, ...] = ()

    def split(self, tensors: Sequence[torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, list[torch.Tensor]]]:
        """Inputs by name, and parameters by piece."""
        inputs = dict(zip(self.inputs, tensors, strict=False))
        weights, begin = {}, len(inputs)
        for name, count in self.counts.items():
            weights[name] = list(tensors[begin : begin + count])
            begin += count
        return inputs, weights


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, given: _Given, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        inputs, weights = given.split([tensor.detach() for tensor in tensors])
        call = given.trainer.forward(inputs, weights, given)
        results = {**call.results, **call.losses}
        given.names = tuple(results)
        ctx.save_for_backward(*tensors)  # torch tells whether they were changed since
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*(one for one in results.values() if not one.is_floating_point()))
        ctx.given, ctx.call = given, call
        return tuple(results.values())

    @staticmethod
    def backward(ctx: Any, *seeds: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        given, call = ctx.given, ctx.call
        ctx.saved_tensors  # noqa: B018  raises for those that were changed, or after a backward that did not retain them
        if call is None:
            _refuse()
        ctx.call = None
        outputs = call.results
        named = {name: seed for name, seed in zip(given.names, seeds, strict=True) if seed is not None}
        (name,) = outputs
        dy = named.pop(name, None)
        dy = torch.zeros_like(outputs[name]) if dy is None else dy.contiguous()
        by_input, by_piece = given.trainer.backward(call, dy, named)
        found: list[torch.Tensor | None] = [by_input.get(one) for one in given.inputs]
        for piece, trained in call.trained.trained.items():
            gradients = by_piece.get(piece, {})
            found += [gradients.get(parameter) for parameter in trained.parameters]
        wanted = ctx.needs_input_grad[1:]
        return None, *(gradient if needed else None for gradient, needed in zip(found, wanted, strict=True))


def _refuse() -> NoReturn:
    raise GradientError(
        "the gradients of a layer over ranks were asked for twice: what its backward needs is given up as it goes. "
        "Call the layer again."
    )
