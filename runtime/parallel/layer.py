"""A compiled layer over several processes as an `nn.Module`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self, cast

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import nn
from torch.distributed.device_mesh import DeviceMesh

from moec.artifact.container import Artifact
from moec.artifact.manifest import Manifest
from moec.artifact.parallel import Parallel
from moec.artifact.schedules import wiring
from moec.errors import ArtifactError, GradientError, MoecError
from moec.placement.lookup import Lookup
from moec.placement.problem import Placement
from moec.placement.table import Table
from moec.runtime.adapt.statistics import LoadStatistics
from moec.runtime.checks import Signature
from moec.runtime.dtypes import TORCH_DTYPES
from moec.runtime.memory import empty
from moec.runtime.module import Layer, require_weights
from moec.runtime.parallel.buffers import Buffers
from moec.runtime.parallel.checkpoints.state import Slots
from moec.runtime.parallel.engine import Engine
from moec.runtime.parallel.network import Network, processes
from moec.runtime.parallel.pieces import Compiled, Pieces
from moec.runtime.parallel.spans import Spans, lengthened
from moec.runtime.parallel.streams import Run
from moec.runtime.parallel.timeline import Timeline
from moec.runtime.parallel.training.pieces import code_of
from moec.runtime.parallel.training.step import Trainer
from moec.runtime.parallel.weights import OwnWeights
from moec.runtime.random_values import RandomValues
from moec.schedule.build import Options, both
from moec.schedule.mesh import Mesh
from moec.schedule.steps import Schedules


class ParallelLayer(nn.Module):
    """A layer whose experts lie on the ranks of a mesh.  Every rank calls it, in the same order, with its own tokens.

    The batch of a call is the tokens of all ranks, one rank's behind the other's: results, a capacity and losses are
    those of the layer in one process on that batch.  Ranks along axes that do not cut tokens are given the same.

    Weights have the names of the `.moe` file; those of routed experts have a leading axis of this rank's slots, and
    `load_state_dict` also takes the layer's whole ones, or those of single experts (`routed.gate.weight.17`).

    Calls of a process go one after the other, whichever threads make them.

    With `elastic`, the mesh may have more positions along its first axis than the layout's: the first ones `serve` at
    first, and `span` changes how many do.  Ranks that do not serve make no calls.
    """

    def __init__(self, artifact: Artifact, devices: DeviceMesh, training: bool, timeout: float, elastic: bool) -> None:
        super().__init__()
        manifest, parallel = artifact.manifest, artifact.manifest.parallel
        if parallel is None or not artifact.pieces:
            raise ArtifactError(
                f"{artifact.path}: {manifest.layer} was compiled for one process. Write a layout for it on a mesh "
                "(docs/parallel.md), and compile it again."
            )
        numbers = processes(parallel.mesh, devices, elastic)
        if training and len(numbers) > parallel.mesh.ranks:
            raise GradientError(
                f"{manifest.layer}: a layer for training runs on the ranks of its layout, and no others"
            )
        names = [name for name in artifact.pieces if not name.endswith("_training")]
        loaded = {name: code_of(artifact.piece(name), training) for name in names}
        schedules = manifest.schedule or _default(parallel, "capacity" in loaded, training)
        pieces = Pieces(**{name: Compiled(layer) for name, layer in loaded.items()})
        inputs = [tensor.name for tensor in manifest.inputs]
        self.__dict__.update(
            _manifest=manifest,
            _signature=Signature.of(manifest),
            _loaded=loaded,
            _layout=parallel,
            _devices=devices,
            _mesh=lengthened(parallel.mesh, devices.shape[0]),
            _ranks=numbers,
            _rank=numbers.index(dist.get_rank()),
            _spans=Spans(parallel, schedules, pieces, inputs, numbers, timeout),
            _serving=None,
            _trainer=None,
            _memory=Buffers(),
            _run=None,
            _before=None,
        )
        grid = tuple(parallel.mesh.axis(name).size for name in parallel.routed.ep) or (1,)
        if self._rank < parallel.mesh.ranks:
            engine = self._spans.engine(parallel.mesh.shape[0])
            trainer = Trainer.of(artifact, parallel, loaded, schedules, pieces, engine.network) if training else None
            self.__dict__.update(_serving=engine, _trainer=trainer)
        self.use(Table.first(Placement.even(parallel.holders), parallel.slots, grid))
        self._adopt()
        self._own = self._own_weights()
        self.register_load_state_dict_pre_hook(_take_own)  # type: ignore[no-untyped-call]
        self.train(training)

    _manifest: Manifest
    _signature: Signature
    _loaded: Mapping[str, Layer]
    _layout: Parallel
    _devices: DeviceMesh
    _mesh: Mesh  # with the ranks that do not serve
    _ranks: tuple[int, ...]
    _rank: int
    _spans: Spans
    _serving: Engine | None
    _memory: Buffers
    _run: Run | None  # the last one
    _before: Callable[[], None] | None  # called first by every call
    _trainer: Trainer | None
    _table: Table
    _lookup: Lookup | None
    _own: OwnWeights

    @property
    def manifest(self) -> Manifest:
        """What the artifact says about the layer in one process, and how it is spread."""
        return self._manifest

    @property
    def parallel(self) -> Parallel:
        """How it is spread; its mesh has the ranks that serve."""
        return self._layout if self._serving is None else self._serving.seat.parallel

    @property
    def rank(self) -> int:
        """This process's number in the mesh, row by row."""
        return self._rank

    @property
    def ranks(self) -> tuple[int, ...]:
        """All processes of the mesh, as the default process group numbers them, also those that do not serve."""
        return self._ranks

    @property
    def peers(self) -> tuple[int, ...]:
        """Of those the ones, by position, that have the same part of the experts there as this rank at its own."""
        return tuple(self._ranks[rank] for rank in self._mesh.group(self._rank, self._layout.routed.ep))

    @property
    def position(self) -> int:
        """At which of the places for experts this rank is, or would be."""
        return self._mesh.position(self._rank, self._layout.routed.ep)

    @property
    def serves(self) -> bool:
        """Whether this rank takes part in calls."""
        return self._serving is not None

    @property
    def trainable(self) -> bool:
        """Whether it was loaded for training."""
        return self._trainer is not None

    def span(self, length: int) -> None:
        """Let calls be made on so many positions of the mesh's first axis, with a `table` of as many, from the next on.

        `prepare` it before.  A rank that begins to serve must have its weights by then.
        """
        serves = self._rank < lengthened(self._mesh, length).ranks
        if serves and not self.serves:
            for layer in self._loaded.values():
                layer._store.missing.clear()
        self.__dict__.update(_serving=self._spans.engine(length) if serves else None, _run=None)

    def prepare(self, length: int) -> None:
        """Make what `span` needs, so that it does not wait for other ranks: all that will serve call this."""
        if self._rank < lengthened(self._mesh, length).ranks:
            self._spans.engine(length)

    @property
    def _engine(self) -> Engine:
        if self._serving is None:
            raise MoecError(f"{self._manifest.layer}: rank {self._rank} does not serve now, so it makes no calls")
        return self._serving

    @property
    def _network(self) -> Network:
        return self._engine.network

    @property
    def pieces(self) -> Mapping[str, Layer]:
        """What this rank runs, each a compiled layer: `route`, `experts`, `collect`, maybe `shared` and `capacity`."""
        return self._loaded

    @property
    def table(self) -> Table:
        """Where every copy of every expert lies."""
        return self._table

    def use(self, table: Table, lookup: Lookup | None = None) -> None:
        """From the next call on, look experts up in `table`; their weights must lie there by then, on all ranks.

        lookup  what this rank's tokens look up in it, if it was made already
        """
        made = table.lookup(self.position) if lookup is None and self.serves else lookup
        self.__dict__.update(_table=table, _lookup=made)

    @property
    def timeline(self) -> Timeline | None:
        """When each step of the last call ran on this rank; None before the first."""
        return (
            None
            if self._run is None or not self.serves
            else Timeline.of(self.rank, self._engine.program.steps, self._run)
        )

    @property
    def statistics(self) -> LoadStatistics:
        """What this rank's own tokens choose, from the first time on that this is asked for."""
        return self._loaded["route"].statistics

    def load(self) -> NDArray[np.int64]:
        """How many slots of all ranks' tokens chose each expert so far, `[E]`: a call that all ranks make.

        Counted from the first time on that a rank's `statistics` were asked for.  Raises RankError.
        """
        own = torch.from_numpy(self.statistics.snapshot().chosen.astype(np.int64))[None]
        everyone = self._network.group(self.parallel.mesh.names)
        found = torch.empty((everyone.size, own.shape[1]), dtype=torch.int64)
        with self._network.call(f"{self._manifest.layer}, its load"):
            everyone.gather(found, own, [1] * everyone.size, "the load")
        # Ranks with the same tokens have routed a share of them each.
        return np.asarray(found.sum(0).numpy())

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # what goes on between ranks is no graph
    def forward(self, *inputs: torch.Tensor | int, **named: torch.Tensor | int) -> Any:
        """Run the layer on this rank's tokens, of any leading shape; there may be none.

        inputs: one for each of the manifest, in order or by name: `(..., *row)` of its dtype, contiguous, on the CPU.

        Returns `(..., *row)` for each output: a tensor, or a tuple where the layer has several.  In training mode a
        layer with auxiliary losses returns a pair: that, and the sum of the losses of the whole batch (f32, no
        dimensions), to be added to the rank's loss; its gradient is that of the rank's own tokens' part.

        Gradients are those of the sum of the ranks' losses.  Every rank must call backward where one does, also one
        without tokens.

        Raises what `Layer.forward` does, before anything is sent, and RankError where other ranks die, hang or fail.
        """
        values = self._signature.bind(inputs, named)
        if torch.is_autocast_enabled("cpu"):
            values = self._signature.cast(values)
        flat, leading = self._signature.flatten(values)
        given = {spec.name: value for spec, value in zip(self._signature.inputs, flat, strict=True)}
        if self._before is not None:
            self._before()
        engine = self._engine
        require_weights(
            self._manifest.layer, [name for piece in self._loaded.values() for name in piece._missing_weights()]
        )
        if (self.training or torch.is_grad_enabled()) and self._takes_a_step(flat):
            return self._take_step(given, leading)
        # Ordinary tensors even in inference mode: threads write them, and later calls that may not be in it.
        with engine.network.call(self._manifest.layer), torch.inference_mode(False), torch.no_grad():
            call = engine.call(given, cast(Lookup, self._lookup), self._memory)
            self.__dict__["_run"] = engine.run(call)
        return self._shaped(call.results, leading)

    def average_gradients(self, mean: bool = True) -> Self:
        """Whether parameters get the mean of the gradients of the ranks' losses, or (at first) their sum.

        The mean is for use beside DistributedDataParallel, which is to leave this layer's parameters alone; auxiliary
        losses count once either way.  Raises GradientError for a layer for inference.
        """
        self._training_engine.mean = mean
        return self

    @property
    def _training_engine(self) -> Trainer:
        if self._trainer is None:
            raise GradientError(
                f"{self._manifest.layer}: a gradient is needed, and the layer was loaded for inference. Load it with "
                "`moec.load(path, mesh=mesh, training=True)`, or call it under `torch.no_grad()`."
            )
        return self._trainer

    def _takes_a_step(self, flat: Sequence[torch.Tensor]) -> bool:
        """Whether a call goes the way of training.  All ranks must decide alike, so tokens do not decide alone."""
        needed = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (*flat, *self.parameters()))
        if self._trainer is None:
            if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in flat):
                self._training_engine  # noqa: B018  raises
            return False
        return needed or self.training

    def _take_step(self, given: Mapping[str, torch.Tensor], leading: tuple[int, ...]) -> Any:
        trainer = self._training_engine
        outputs, loss = trainer(given, trainer.weights(self._loaded), self._table, cast(Lookup, self._lookup))
        shaped = self._shaped(outputs, leading)
        return shaped if loss is None or not self.training else (shaped, loss)

    def _shaped(self, results: Mapping[str, torch.Tensor], leading: tuple[int, ...]) -> Any:
        outputs = [results[tensor.name] for tensor in self._manifest.outputs]
        if len(leading) != 1:
            outputs = [output.view(*leading, *output.shape[1:]) for output in outputs]
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def reset_parameters(self, seed: int) -> Self:
        """Give every weight the random values that the layer in one process gets from the same seed."""
        values = RandomValues.of(self._manifest, torch.Generator("cpu").manual_seed(seed))
        state = {}
        for weight in self._manifest.parameters:
            whole = empty(weight.shape, TORCH_DTYPES[weight.dtype])
            values.fill(weight, whole)
            state[weight.name] = self._own.of(weight.name, whole, self._experts)
        self.load_state_dict(state)
        return self

    def expert_slots(self) -> dict[str, Slots]:
        """For checkpoints: which experts' weights lie in this rank's slots, what parts of them, what it writes."""
        experts = tuple(self._experts)
        holders = self._table.placement.holders
        found = {}
        for name in self._own.held:
            axes = self._tp.get(name.partition(".")[0], ())
            axis = self._own.cut_axis(name)
            cut = None if axis is None else (self._devices[axes if len(axes) > 1 else axes[0]], axis)
            if name in self._own.slotted:
                first = self._is_first((*self.parallel.routed.ep, *(axes if cut is not None else ())))
                written = tuple(e >= 0 and holders[e][0] == self.position and first for e in experts)
                found[name] = Slots(experts, written, cut)
            elif cut is not None:
                found[name] = Slots(None, (self._is_first(axes),), cut)
        return found

    def _is_first(self, axes: Sequence[str]) -> bool:
        """Is this rank the first of those that are at its position along `axes`?"""
        others = [name for name in self._mesh.names if name not in axes]
        return self._mesh.group(self.rank, others)[0] == self.rank

    def before_calls(self, before: Callable[[], None] | None) -> None:
        """Let every call begin with `before`, which may change the table; None: with nothing."""
        self.__dict__["_before"] = before

    def release_buffers(self) -> int:
        """Give back the memory for rows that travel, which calls keep for the next one; returns the bytes."""
        return self._memory.release()

    def extra_repr(self) -> str:
        return f"{self._manifest.layer}, rank {self.rank} of {self.parallel.mesh.name}{list(self.parallel.mesh.shape)}"

    @property
    def _experts(self) -> Sequence[int]:
        """The expert in each of this rank's slots; -1: none."""
        found: list[int] = self._table.held[self.position].tolist() if self.serves else [-1] * self._table.slots
        return found

    def _adopt(self) -> None:
        """Show the pieces' weights under the names of the file."""
        for layer in self._loaded.values():
            for name, child in layer._modules.items():
                if name in self._modules:
                    raise ArtifactError(f"{self._manifest.layer}: two pieces have weights that begin with {name!r}")
                self._modules[name] = child

    @property
    def _tp(self) -> dict[str, tuple[str, ...]]:
        """For each group of experts the axes that cut their hidden dimension."""
        return {one.experts: one.tp for one in (self.parallel.routed, *self.parallel.shared)}

    def _own_weights(self) -> OwnWeights:
        mesh, cut = self._mesh, {}
        held = {weight.name: weight for layer in self._loaded.values() for weight in layer.manifest.parameters}
        for name in held:
            axes = self._tp.get(name.partition(".")[0], ())
            cut[name] = (mesh.size(axes), mesh.position(self.rank, axes))
        slotted = [weight.name for weight in self._loaded["experts"].manifest.parameters]
        return OwnWeights(self._manifest, held, slotted, cut)


def _take_own(layer: ParallelLayer, state: dict[str, Any], prefix: str, *rest: Any) -> None:
    """Before `load_state_dict`: of the whole layer's weights this rank's."""
    found = layer._own.gathered(state, prefix, layer._experts)
    for key in [key for key in state if key not in found]:
        del state[key]
    state.update(found)


def _default(parallel: Parallel, capacity: bool, training: bool) -> Schedules:
    """A schedule for an artifact that has none.  Raises ArtifactError where there cannot be one."""
    try:
        return both(wiring(parallel, capacity), Options(deduplicate=True), training)
    except ValueError as why:
        raise ArtifactError(f"there is no schedule for the layout {parallel.layout}: {why}") from why
