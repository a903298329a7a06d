"""A compiled layer as an `nn.Module`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Self, cast

import torch

from moec.artifact.manifest import Manifest
from moec.errors import AdaptationError, DeviceError, GradientError, WeightsError
from moec.runtime import gradients, losses
from moec.runtime.checks import Signature
from moec.runtime.containers import TABLES, Weights
from moec.runtime.cuda.coded import CodedWeights
from moec.runtime.cuda.moving import places, settle
from moec.runtime.cuda.opened import compiled_for_cpu, opened
from moec.runtime.dtypes import TORCH_DTYPES
from moec.runtime.memory import empty
from moec.runtime.native import Kernel
from moec.runtime.operator import operator
from moec.runtime.packing.weights import PackedWeights, check_weight
from moec.runtime.placeholder import PackedBuffer, PackedParameter, placeholder, stands_in
from moec.runtime.random_values import RandomValues
from moec.runtime.recycling import RECYCLED
from moec.runtime.step import Step
from moec.runtime.workspace import WORKSPACES

if TYPE_CHECKING:
    from moec.artifact.policy import Policy
    from moec.runtime.adapt.adaptation import Adaptation
    from moec.runtime.adapt.statistics import LoadStatistics

_PLACEHOLDERS = (PackedParameter, PackedBuffer)


class Layer(Weights):
    """A compiled layer.  Calling it runs machine code on torch's own threads.

    Its weights are parameters and buffers with the names of the `.moe` file; `state_dict` and `load_state_dict` work as
    with any module.  They are packed into the order of the kernels as they are given, and only the packed form stays in
    memory: `parameters()` then shows placeholders of the right shape and dtype.  With `keep_weights` the ordinary
    tensors stay too, may be edited in place, and are packed again by the next call after a change.

    A layer for training has ordinary weights that require gradients.  In training mode, and wherever a gradient is
    needed, a call reads them as they are; other calls use the packed form, which is brought up to date first.  In
    training mode a layer whose file asks for auxiliary losses returns its result and their sum.

    Calls from several threads at once are fine; changing weights while a call runs is not.
    """

    def __init__(self, kernel: Kernel, keep_weights: bool, training: bool, file: str) -> None:
        super().__init__(PackedWeights(kernel, keep_weights or training))
        manifest = kernel.library.manifest
        self.__dict__.update(
            _signature=Signature.of(manifest),
            _artifact=kernel.library.sha256,
            _file=file,
            _variant=kernel.variant,
            _operator=operator(),
            _step=kernel.step,
            _step_operator=gradients.operator(),
            _places=[],
        )
        for index, weight in enumerate(manifest.parameters):
            path = weight.name.split(".")
            self._places.append((self.add_weight(path, index), TABLES[weight.role], path[-1]))
        if training:
            for level in self._levels():
                level.materialise()
            self._store.reserve()
            self._store.mark_blank(self._tensors())
        self.train(training)

    _signature: Signature
    _artifact: str
    _file: str  # the artifact's file
    _variant: str
    _operator: Any
    _step: Step | None
    _step_operator: Any
    _places: list[tuple[Weights, str, str]]  # of each weight, in order: its level, nn.Module's table, its name there

    @property
    def manifest(self) -> Manifest:
        """What the artifact says about itself."""
        return self._store.kernel.library.manifest

    @property
    def sha256(self) -> str:
        """The digest that names the artifact."""
        return self._artifact

    @property
    def variant(self) -> str:
        """Name of the variant that runs on this processor."""
        return self._variant

    @property
    def packed_bytes(self) -> int:
        """Size of the packed weights in bytes (0 before the first weight is given)."""
        return self._store.buffer.numel()

    @property
    def statistics(self) -> LoadStatistics:
        """Which experts calls choose, and how many tokens they have, from the first time on that this is asked for.

        Calls that go the way of training are not counted.  Raises AdaptationError where the artifact does not count:
        it was compiled from IR that does not say which experts are routed.
        """
        found = self._store.statistics
        if found is None:
            from moec.runtime.adapt.statistics import LoadStatistics

            found = self._store.observed(lambda: LoadStatistics.of(self.manifest))
        return found

    def adapt(
        self,
        *,
        policy: Policy | None = None,
        cache: str | os.PathLike[str] | None = None,
        journal: str | os.PathLike[str] | None = None,
        weights: str | os.PathLike[str] | None = None,
    ) -> Adaptation:
        """Let the layer follow its load, in the background, as the layout in its file says (docs/adaptation.md).

        policy   instead of the file's
        cache    folder for compiled variants; by default `$XDG_CACHE_HOME/moec/variants`
        journal  file to write down what is done and why; by default a new one in `$XDG_STATE_HOME/moec/journals`
        weights  folder for the file of packed weights, where the policy lets cold experts lie on disk (`page`); it must
                 be on a disk, not in memory; by default `$XDG_CACHE_HOME/moec/weights`

        Returns the handle that ends it: by `stop()`, or as the object of a `with`.  Calls go on as before meanwhile,
        and nothing that goes wrong reaches them.

        Raises AdaptationError for a layer without policy, or that adapts already, or whose artifact is gone; CacheError
        for a folder that others may write to.
        """
        if self._store.device.type != "cpu":
            raise AdaptationError(f"{self.manifest.layer} is on {self._store.device}; layers adapt on the CPU only")
        from moec.runtime.adapt.start import start

        return start(self._store, self._file, self.statistics, policy, cache, journal, weights)

    @property
    def adaptation(self) -> Adaptation | None:
        """The handle that `adapt` returned last, also where `moec.load(..., adapt=True)` called it."""
        return self._store.adaptation

    def forward(self, *inputs: torch.Tensor | int, **named: torch.Tensor | int) -> Any:
        """Run the layer on tokens of any leading shape.

        inputs: one for each input of the manifest, in order or by name: `(..., *row)` of its dtype, contiguous, on the
        device that the layer is on, the leading shape the same for all.  An input of i32 a token may be an int: the
        same for every token.  Under `torch.autocast` for that device inputs of floats are converted.
        Returns `(..., *row)` for each output: a tensor, or a tuple where the layer has several.  In training mode a
        layer with auxiliary losses returns a pair: that, and the sum of the losses (f32, no dimensions), to be added to
        the model's loss.

        Raises ShapeError, DtypeError, DeviceError, LayoutError, RangeError, GradientError (all InputError), or
        WeightsError while weights are missing.
        """
        values = self._signature.bind(inputs, named)
        device = self._store.device
        if torch.is_autocast_enabled(device.type):
            values = self._signature.cast(values)
        flat, leading = self._signature.flatten(values, device)
        if not torch.compiler.is_compiling() and gradients.in_forward_mode():
            gradients.refuse_tangents(self.manifest.layer, [*flat, *self._ordinary()])
        if (self.training or torch.is_grad_enabled()) and not torch.compiler.is_exporting():
            ordinary = self._ordinary()
            if self._takes_a_step(flat, ordinary):
                return self._take_step(flat, ordinary, leading)
        variant = self._variant
        if device.type != "cpu":
            self._require_weights()
            weights = self._named_tensors() if torch.compiler.is_compiling() else self._tensors()
            if self._store.coded is not None:
                weights = self._store.coded.filled(weights)
            return _shaped(self._operator(None, weights, flat, self._artifact, ""), leading)
        if not torch.compiler.is_compiling():
            packed, weights = self._current()
        elif torch.compiler.is_exporting():
            # An exported program holds ordinary weights, so that it runs wherever some variant of the artifact does.
            self._require_ordinary()
            packed, weights, variant = None, self._named_tensors(), ""
        else:
            self._require_weights()
            packed, weights = self._store.buffer, self._named_tensors() if self._store.keep else []
        return _shaped(self._operator(packed, weights, flat, self._artifact, variant), leading)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        self._store.missing_now()
        twin = super().__deepcopy__(memo)
        twin._store.mark_blank(twin._tensors())
        return twin

    def reset_parameters(self, seed: int | None = None) -> Self:
        """Give every weight random values: normal with variance 1 / (size of the last dimension), integers 0.

        Weights that are given quantised get codes and positive scales whose products are about as large.

        seed: makes the values reproducible; without it torch's default generator is used.
        """
        generator = None if seed is None else torch.Generator("cpu").manual_seed(seed)
        values = RandomValues.of(self.manifest, generator)
        for weight, (level, _, name) in zip(self._store.weights, self._places, strict=True):
            present = level.get(name)
            packed = stands_in(present)
            here = not packed and present.device.type == "cpu"
            value = present.detach() if here else empty(weight.shape, TORCH_DTYPES[weight.dtype])
            values.fill(weight, value)
            if packed:
                setattr(level, name, value)
            elif not here:
                present.detach().copy_(value)
        return self

    def unpack(self) -> Self:
        """Give the layer ordinary tensors again, and keep them: as if it was loaded with `keep_weights`.

        Parameters are new objects afterwards.  The packed form stays too, so weights are in memory twice until `pack`.
        Raises WeightsError where weights were quantised while they were packed: what was given is gone.
        """
        for index, tensor in enumerate(self._tensors()):
            if stands_in(tensor) and self._store.weights[index].name not in self._store.missing:
                self._store.require_exact(index)
        for level in self._levels():
            level.restore()
        self._store.keep = True
        return self

    def pack(self) -> Self:
        """Pack what has changed and let go of the ordinary tensors; on a CUDA device, of what is packed there."""
        coded = self._store.coded
        if coded is not None:
            for index, (level, table, name) in enumerate(self._places):
                tensor, weight = level.get(name), self._store.weights[index]
                if index in coded and not stands_in(tensor):
                    self._store.check_codes(weight, tensor)
                    coded.give(index, tensor)
                    level.__dict__[table][name] = placeholder(weight)
        if self._store.keep and self._store.device.type == "cpu":
            for index, tensor in enumerate(self._tensors()):
                if self._store.weights[index].name not in self._store.missing:
                    self._store.pack(index, tensor)
            for level in self._levels():
                level.release()
            self._store.keep = False
        return self

    @contextmanager
    def unpacked(self) -> Iterator[Self]:
        """Ordinary tensors for the body of a `with`, to read and to edit; packed again at its end.

        On a CUDA device codes that are packed there are of no use to calls before that.
        """
        kept = self._store.keep
        self.unpack()
        try:
            yield self
        finally:
            if not kept or self._store.coded is not None:
                self.pack()

    def _move(self, device: torch.device) -> None:
        """Bring the weights to another device, where they are ordinary tensors.

        On a CUDA device, placeholders stand for weights that are kept there in another form.

        Raises DeviceError for a device that there is no code for, or of a layer that adapts; WeightsError where what is
        to be quantised there is not kept; and what opening the device raises (UnsupportedGpu, CudaError).
        """
        manifest, store = self.manifest, self._store
        if device.type not in ("cpu", "cuda"):
            raise DeviceError(
                f"{manifest.layer} cannot be moved to {device}: layers run on the CPU and on CUDA devices"
            )
        if manifest.cuda is None:
            raise DeviceError(f"{manifest.layer} cannot be moved to {device}: {compiled_for_cpu(manifest.layer)}")
        if store.adaptation is not None and store.adaptation.running:
            raise DeviceError(f"{manifest.layer} adapts to its load on the CPU: call `stop()` on its adaptation first")
        if device.type == "cuda":
            opened(self._artifact, device.index)
        memory = places(manifest, device)
        before, coded = store.coded, CodedWeights.of(manifest, device, memory)
        for index, tensor in enumerate(self._tensors()):
            kept = coded is not None and before is not None and index in before
            if stands_in(tensor) and store.weights[index].name not in store.missing and not kept:
                store.require_exact(index)
            elif coded is not None and index in coded and not stands_in(tensor):
                store.check_codes(store.weights[index], tensor)
        for index, place in enumerate(memory[: len(store.weights)]):
            level, table, name = self._places[index]
            present = level.get(name)
            given = store.weights[index].name not in store.missing_now()
            if coded is not None and index in coded:
                if given and before is not None and stands_in(present):
                    coded.take(index, before)
                elif given:
                    coded.give(index, store.value(index) if stands_in(present) else present)
                level.__dict__[table][name] = placeholder(store.weights[index])
                continue
            value = partial(store.value, index) if stands_in(present) else present.detach
            moved = settle(present, place, value if given else None, store.weights[index].role)
            level.__dict__[table][name] = moved
        store.settle(device, coded)
        store.mark_blank(self._tensors())

    def repack(self) -> None:
        """Pack every kept weight again: for changes made behind torch's back (NumPy views, `param.data[...] = …`)."""
        self._store.forget()

    def release_workspace(self) -> int:
        """Give back the memory that calls and dropped gradients have left (all layers share it); returns the bytes."""
        return WORKSPACES.release() + RECYCLED.release()

    def extra_repr(self) -> str:
        manifest = self.manifest
        device = self._store.device
        if device.type != "cpu":
            code = opened(self._artifact, device.index).architecture
            state = (
                f"{len(self._store.missing_now())} weights missing" if self._store.missing else f"weights on {device}"
            )
            return f"{manifest.layer}, {code}, {state}"
        state = f"{len(self._store.missing)} weights missing" if self._store.missing else "weights packed"
        return f"{manifest.layer}, {self._variant}, {state}{' and kept' if self._store.keep else ''}"

    def _levels(self) -> list[Weights]:
        return [module for module in self.modules() if isinstance(module, Weights)]

    def _tensors(self) -> list[torch.Tensor]:
        return [level.__dict__[table][name] for level, table, name in self._places]

    def _named_tensors(self) -> list[torch.Tensor]:
        """The same, by a way that torch's tracers follow and give the parameters' own names."""
        named = {**dict(self.named_parameters()), **dict(self.named_buffers())}
        return [named[weight.name] for weight in self._store.weights]

    def _ordinary(self) -> list[torch.Tensor]:
        """The weights that are ordinary tensors: all of them, none, or those that stand in for one call."""
        if torch.compiler.is_compiling():
            return self._named_tensors() if self._store.keep else []
        return [tensor for tensor in self._tensors() if type(tensor) not in _PLACEHOLDERS]

    def _takes_a_step(self, flat: list[torch.Tensor], ordinary: list[torch.Tensor]) -> bool:
        """Whether this call goes the way of training.  Raises GradientError where it would have to and cannot."""
        needed = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (*flat, *ordinary))
        step = self._step
        if step is None:
            if needed:
                raise GradientError(gradients.for_inference_only(self.manifest.layer))
            return False
        if len(ordinary) == len(self._places):
            return needed or self.training
        if needed or (self.training and step.losses):
            why = "a gradient is needed" if needed else "auxiliary losses are computed in training mode"
            raise GradientError(
                f"{self.manifest.layer}: {why}, and the weights are packed for inference. Load the layer with "
                "`moec.load(path, training=True)`, or call it under `torch.no_grad()` after `layer.eval()`."
            )
        return False

    def _take_step(self, flat: list[torch.Tensor], weights: list[torch.Tensor], leading: tuple[int, ...]) -> Any:
        step = cast(Step, self._step)
        self._require_weights()
        if not torch.compiler.is_compiling():
            for weight, tensor in zip(self._store.weights, weights, strict=True):
                check_weight(weight, tensor, self._store.device)
        results = self._step_operator(flat, weights, self._artifact, self._variant)
        count = len(step.outputs)
        outputs = _shaped(results[:count], leading)
        if not (self.training and step.losses):
            return outputs
        given = {tensor.name: result for tensor, result in zip(step.loss_tensors, results[count:], strict=False)}
        return outputs, losses.total(step.losses, given)

    def _current(self) -> tuple[torch.Tensor | None, list[torch.Tensor]]:
        """The operator's `packed` and `weights` for a call outside of torch's compiler."""
        for level, table, name in self._places:
            if type(level.__dict__[table][name]) not in _PLACEHOLDERS:
                return self._current_ordinary()
        if self._store.missing:
            self._require_weights()
        return self._store.buffer, []

    def _current_ordinary(self) -> tuple[torch.Tensor | None, list[torch.Tensor]]:
        tensors = self._tensors()
        if self._store.keep:
            self._require_weights()
            self._store.refresh(tensors)
            return self._store.buffer, []
        # Other weights stand in for this one call (torch.func.functional_call).
        return None, [
            self._store.unpack(index) if stands_in(tensor) else tensor for index, tensor in enumerate(tensors)
        ]

    def _require_ordinary(self) -> None:
        if not self._store.keep:
            raise WeightsError(
                f"{self.manifest.layer}: torch.export takes the ordinary weights along, and they are packed. Export "
                "inside `with layer.unpacked():`, or load the layer with `moec.load(path, keep_weights=True)`."
            )

    def _missing_weights(self) -> Sequence[str]:
        if not torch.compiler.is_compiling() and not self._store.missing:  # torch's compiler would guard on the latter
            return ()
        names: Sequence[str] = self._store.missing_now()
        return names

    def _require_weights(self) -> None:
        require_weights(self.manifest.layer, self._missing_weights())


def require_weights(layer: str, missing: Sequence[str]) -> None:
    """Raises WeightsError where weights of a layer have no values."""
    if not missing:
        return
    shown = ", ".join(missing[:8]) + (f" and {len(missing) - 8} more" if len(missing) > 8 else "")
    raise WeightsError(
        f"{layer} has no values yet for {shown}. Give them with `layer.load_state_dict(...)`, or random ones with "
        "`layer.reset_parameters(seed)`."
    )


def _shaped(outputs: list[torch.Tensor], leading: tuple[int, ...]) -> torch.Tensor | tuple[torch.Tensor, ...]:
    """What a call returns: outputs with the leading shape that the tokens had, one or a tuple."""
    if len(leading) != 1:
        outputs = [output.view(*leading, *output.shape[1:]) for output in outputs]
    return outputs[0] if len(outputs) == 1 else tuple(outputs)
