"""The nested modules that give a layer's weights their dotted names: `layer.routed.gate.weight`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, Self, cast

import torch
from torch import nn

from moec.artifact.manifest import Weight
from moec.errors import DeviceError, DtypeError, GradientError, WeightsError
from moec.runtime.dtypes import TORCH_DTYPES
from moec.runtime.memory import empty
from moec.runtime.packing.weights import PackedWeights, check_weight
from moec.runtime.placeholder import PACKED_CANNOT_TRAIN, placeholder, stands_in

TABLES = {"parameter": "_parameters", "buffer": "_buffers"}
"""Where nn.Module keeps the tensors of each role."""


class Weights(nn.Module):
    """One level of names.  Its tensors are placeholders while their values lie in `store`, else ordinary tensors.

    _store    the packed weights of the whole layer
    _indices  number of each tensor of this level in the manifest
    _casting  whether an assignment may convert (`load_state_dict` converts as it copies; `=` does not)
    """

    _store: PackedWeights
    _indices: dict[str, int]
    _casting: bool

    def __init__(self, store: PackedWeights) -> None:
        super().__init__()
        self.__dict__.update(_store=store, _indices={}, _casting=False)

    def add_weight(self, path: list[str], index: int) -> Weights:
        """Place weight `index` at `path` below this level, making the levels between; returns the level it is on."""
        level = self
        for name in path[:-1]:
            # Written past `add_module`, which refuses names that nn.Module uses itself, such as `type`.
            level = cast(Weights, level._modules.setdefault(name, Weights(self._store)))
        level._indices[path[-1]] = index
        level._put(path[-1], placeholder(self._store.weights[index]))
        return level

    def get(self, name: str) -> torch.Tensor:
        """The tensor or placeholder of this level's weight `name`."""
        tensor: torch.Tensor = self._table(name)[name]
        return tensor

    def release(self) -> None:
        """Replace the ordinary tensors of this level by placeholders."""
        for name, index in self._indices.items():
            self._put(name, placeholder(self._store.weights[index]))

    def materialise(self) -> None:
        """Give this level ordinary tensors without values; parameters of floats require gradients."""
        for name, index in self._indices.items():
            weight = self._store.weights[index]
            tensor = empty(weight.shape, TORCH_DTYPES[weight.dtype])
            if weight.role == "parameter":
                tensor = nn.Parameter(tensor, requires_grad=tensor.is_floating_point())
            self._table(name)[name] = tensor

    def restore(self) -> None:
        """Replace the placeholders of this level by ordinary tensors, where values were given."""
        for name, index in self._indices.items():
            if self._store.weights[index].name not in self._store.missing and stands_in(self.get(name)):
                self._put(name, self._store.unpack(index))

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__.get("_indices", {}):
            self._assign(name, value)
        else:
            super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        if name in self.__dict__.get("_indices", {}):
            weight = self._store.weights[self._indices[name]].name
            raise WeightsError(
                f"weight {weight!r} cannot be deleted: the layer is compiled for it. Give it other values."
            )
        super().__delattr__(name)

    def _assign(self, name: str, value: torch.Tensor) -> None:
        """Take `value` as this weight: packed at once, or kept and packed by the next call."""
        index = self._indices[name]
        weight = self._store.weights[index]
        coded = self._store.coded
        if coded is not None and (index not in coded or not stands_in(self.get(name))):
            coded = None
        if self._casting and isinstance(value, torch.Tensor):
            device = value.device if coded is not None else self._store.device
            value = value.detach().to(device=device, dtype=TORCH_DTYPES[weight.dtype])
        if coded is not None:
            check_weight(weight, value, value.device if isinstance(value, torch.Tensor) else self._store.device)
            self._store.check_codes(weight, value)
            coded.give(index, value)
            self._store.missing.pop(weight.name, None)
        elif self._store.device.type != "cpu":
            # Kernels read it where it is, perhaps together with its neighbours.
            check_weight(weight, value, self._store.device)
            with torch.no_grad():
                self.get(name).copy_(value)
            self._store.missing.pop(weight.name, None)
        elif self._store.keep:
            check_weight(weight, value)
            self._put(name, value)
            self._store.reserve()
            self._store.missing.pop(weight.name, None)
        else:
            self._store.pack(index, value)

    def _put(self, name: str, tensor: torch.Tensor) -> None:
        role = self._store.weights[self._indices[name]].role
        table = self._table(name)
        if role == "parameter" and not isinstance(tensor, nn.Parameter):
            before = table.get(name)
            tensor = nn.Parameter(tensor.detach(), requires_grad=before is not None and before.requires_grad)
        table[name] = tensor

    def _table(self, name: str) -> dict[str, Any]:
        table: dict[str, Any] = self.__dict__[TABLES[self._store.weights[self._indices[name]].role]]
        return table

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        for name, tensor in (*self._parameters.items(), *self._buffers.items()):
            if tensor is None or name in self._non_persistent_buffers_set:
                continue
            if stands_in(tensor):
                index = self._indices[name]
                given = self._store.weights[index].name not in self._store.missing
                bare = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
                tensor = self._store.unpack(index) if given else bare
            destination[prefix + name] = tensor if keep_vars else tensor.detach()

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, local_metadata: dict[str, Any], *rest: Any
    ) -> None:
        """Load as nn.Module does, but for weights without an ordinary tensor: these are assigned (see `_assign`)."""
        assign = local_metadata.get("assign_to_params_buffers", False)
        coded = self._store.coded
        for name, index in self._indices.items():
            _require_same_codes(self._store.weights[index], state_dict.get(prefix + name))
        if self._store.keep and not assign and not any(coded and index in coded for index in self._indices.values()):
            for name in self._indices:
                given, present = state_dict.get(prefix + name), self.get(name)
                if stands_in(present) and isinstance(given, torch.Tensor) and given.shape == present.shape:
                    self._assign(name, torch.empty(present.shape, dtype=present.dtype, device="cpu"))
        elif not assign:
            local_metadata = {**local_metadata, "assign_to_params_buffers": True}
        self.__dict__["_casting"] = not assign
        try:
            super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)
        finally:
            self.__dict__["_casting"] = False

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        """`.to`, `.half`, `.cuda`, `.share_memory` …: fine where they change nothing, or only the device of the whole
        layer to one that it has code for; an error otherwise."""
        layer = self._store.kernel.library.manifest.layer
        target = self._store.device
        for dtype in dict.fromkeys(TORCH_DTYPES[weight.dtype] for weight in self._store.weights):
            probe = torch.empty(0, dtype=dtype, device=self._store.device)
            try:
                result = fn(probe)
            except (AssertionError, RuntimeError) as why:  # of torch, for a device that it does not know or find
                raise DeviceError(f"{layer} cannot be moved there: {_refusal(why)}") from why
            target = result.device
            if result.dtype != dtype:
                raise DtypeError(
                    f"{layer} cannot be converted to {result.dtype}: its machine code reads weights of {dtype}. "
                    "Compile it for another dtype, or convert the model before the layer is put into it."
                )
            if result.device.type == "cpu" and result.is_shared():
                raise WeightsError(f"the packed weights of {layer} cannot be moved to shared memory")
        if target != self._store.device:
            self._move(target)
        return self

    def _move(self, device: torch.device) -> None:
        """Bring the weights to another device."""
        raise DeviceError(f"weights of {self._store.kernel.library.manifest.layer} are moved all at once, by the layer")

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        if not requires_grad or (self._store.keep and self._store.kernel.step is not None):
            return super().requires_grad_(requires_grad)
        raise GradientError(PACKED_CANNOT_TRAIN)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        twin.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return twin

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise WeightsError(
            "a compiled layer cannot be pickled: its code is in its artifact. Save `layer.state_dict()`, and give it "
            "to the layer that `moec.load` makes of the artifact."
        )


def _require_same_codes(weight: Weight, given: object) -> None:
    """Raise DtypeError for codes of floats in place of whole numbers, or the other way round.

    Converting, as torch does, would take their values where their bits, in a tensor of bytes say, are meant.
    """
    dtype, codes = TORCH_DTYPES[weight.dtype], torch.float8_e4m3fn
    if isinstance(given, torch.Tensor) and given.dtype is not dtype and codes in (given.dtype, dtype):
        raise DtypeError(
            f"weight {weight.name!r} must be {dtype}, not {given.dtype}, which is not converted. Bits of the one in a "
            f"tensor of the other become what they are by `.view({dtype})`."
        )


def _refusal(why: AssertionError | RuntimeError) -> str:
    """What torch says, and what would help."""
    said = str(why).splitlines()[0] if str(why) else type(why).__name__
    if isinstance(why, AssertionError) and torch.version.cuda is None:
        said += f". This is PyTorch {torch.__version__}, a build without CUDA: install one with it to use CUDA devices"
    return f"PyTorch says: {said}"
