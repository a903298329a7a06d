"""The packed weights of a layer: one buffer in the kernels' own order, and what of it is up to date."""

from __future__ import annotations

import copy
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from moec.artifact.manifest import Weight
from moec.errors import DeviceError, DtypeError, InputError, LayoutError, RangeError, ShapeError, WeightsError
from moec.formats import FORMATS
from moec.runtime.dtypes import TORCH_DTYPES
from moec.runtime.memory import allocate, empty
from moec.runtime.native import Kernel
from moec.runtime.placeholder import stands_in

if TYPE_CHECKING:  # loaded only by a layer that adapts, or that runs on a CUDA device
    from moec.runtime.adapt.adaptation import Adaptation
    from moec.runtime.adapt.mapped import MappedMemory
    from moec.runtime.adapt.published import Published
    from moec.runtime.adapt.statistics import LoadStatistics
    from moec.runtime.cuda.coded import CodedWeights

_Stamp = tuple[int, int]
_CPU = torch.device("cpu")


class PackedWeights:
    """A u8 buffer of `kernel`'s packed form, filled weight by weight.

    buffer      empty until the first weight comes; its pages count as memory once they are written
    missing     names of the weights that were never given
    blank       ordinary tensors that were made without values, by number, each as it was then
    keep        whether the layer keeps ordinary tensors beside the packed ones
    device      where ordinary tensors are; on another than the CPU there are no packed ones
    coded       on a CUDA device, what is kept there in another form than it was given; None where nothing is
    published   what calls run instead of `kernel`; None: nothing else
    mapped      the file in which `buffer` lies; None: none
    statistics  where calls leave what they count; None: nobody asks
    adaptation  what changes `published`; None: nothing does
    generation  counts the changes of weights
    """

    def __init__(self, kernel: Kernel, keep: bool) -> None:
        self.kernel = kernel
        self.keep = keep
        self.device = torch.device("cpu")
        self.coded: CodedWeights | None = None
        self.weights = kernel.library.manifest.parameters
        quantised = kernel.library.manifest.quantised
        self._made_while_packing = quantised.made_while_packing if quantised else {}
        self._codes = quantised.codes if quantised else {}
        self.buffer = torch.empty(0, dtype=torch.uint8, device="cpu")
        self.missing = dict.fromkeys(weight.name for weight in self.weights)
        self.blank: dict[int, tuple[torch.Tensor, _Stamp]] = {}
        self._stamps: list[_Stamp | None] = [None] * len(self.weights)
        # Keeps the storage that was packed alive, so that no other tensor can come to its address and pass for it.
        self._packed_from: list[torch.Tensor | None] = [None] * len(self.weights)
        self._lock = threading.Lock()
        self.published: Published | None = None
        self.mapped: MappedMemory | None = None
        self.statistics: LoadStatistics | None = None
        self.adaptation: Adaptation | None = None
        self.generation = 0
        self._publishing = threading.Lock()

    def __deepcopy__(self, memo: dict[int, object]) -> PackedWeights:
        twin = PackedWeights(self.kernel, self.keep)
        twin.device = self.device
        twin.coded = copy.deepcopy(self.coded, memo)
        if self.buffer.numel():
            twin.reserve()
            twin.buffer.copy_(self.buffer)
        twin.missing = dict(self.missing)
        return twin

    def reserve(self) -> None:
        """Make sure that `buffer` exists, without touching its pages."""
        if not self.buffer.numel():
            self.buffer = allocate(int(self.kernel.call("packed_bytes")))
            _OWNERS[self.buffer.data_ptr()] = self

    def settle(self, device: torch.device, coded: CodedWeights | None) -> None:
        """Ordinary tensors are on `device` from now on, and others in `coded`; the packed ones are dropped, and
        made anew by the next call on the CPU."""
        with self._publishing:
            self.generation += 1
            self.published = None
            self.buffer = torch.empty(0, dtype=torch.uint8, device="cpu")
            self.mapped = None
        self.keep, self.device, self.coded = True, device, coded
        self.forget()

    def move(self, memory: MappedMemory) -> None:
        """Keep the packed weights in `memory` from now on; calls that run end as they began.

        Not while weights are given.  Builds that were published read the buffer of before, and are taken back.
        """
        if self.mapped is memory:
            return
        if self.buffer.numel():
            memory.buffer.copy_(self.buffer)
        with self._publishing:
            self.published = None
            self.mapped, self.buffer = memory, memory.buffer
        _OWNERS[self.buffer.data_ptr()] = self

    def pack(self, index: int, tensor: torch.Tensor) -> None:
        """Write weight `index` into its place from a CPU tensor of the declared shape and dtype (any strides)."""
        check_weight(self.weights[index], tensor)
        self.check_codes(self.weights[index], tensor)
        self.reserve()
        self._changes()
        try:
            self.kernel.call("pack", index, self.buffer, tensor.detach().contiguous())
        finally:
            self._changes()
        self.missing.pop(self.weights[index].name, None)
        self._stamps[index] = self._packed_from[index] = None

    def publish(self, published: Published | None, generation: int) -> bool:
        """Let calls run `published` from now on; running calls end as they began.

        False, and nothing is changed, if weights were given since `generation`: builds with packed weights of their
        own would hold old ones.
        """
        with self._publishing:
            if self.generation != generation:
                return False
            self.published = published
            return True

    def observed(self, make: Callable[[], LoadStatistics]) -> LoadStatistics:
        """`statistics`, made by `make` when they are asked for first: the same for threads that ask at once."""
        with self._publishing:
            found = self.statistics
            if found is None:
                found = self.statistics = make()
            return found

    def forked(self) -> None:
        """In a forked child: a lock that a thread of the parent may have held is free."""
        self._publishing = threading.Lock()

    def _changes(self) -> None:
        """Weights are about to change, or just have: builds that hold a copy of them must not run any more."""
        with self._publishing:
            self.generation += 1
            if self.published is not None:
                self.published = self.published.reading(self.buffer)

    def unpack(self, index: int) -> torch.Tensor:
        """A new tensor with exactly the bits that `pack` was given.

        Raises WeightsError for a weight that was quantised while it was packed: its bits are gone.
        """
        self.require_exact(index)
        if self.coded is not None and index in self.coded:
            return self.coded.value(index)
        weight = self.weights[index]
        tensor = empty(weight.shape, TORCH_DTYPES[weight.dtype])
        self.kernel.call("unpack", index, self.buffer, tensor)
        return tensor

    def value(self, index: int) -> torch.Tensor:
        """The weight as it was given: the tensor itself where the layer keeps it, else a new one.

        Raises WeightsError as `unpack` does.
        """
        given = self._packed_from[index]
        return self.unpack(index) if given is None else given.contiguous()

    def require_exact(self, index: int) -> None:
        """Raise WeightsError if the packed form keeps less than was given."""
        if self.weights[index].name in self._made_while_packing:
            raise WeightsError(
                f"{self.weights[index].name!r} was quantised while it was packed, and the values that were given are "
                "not kept. Keep them with `moec.load(path, keep_weights=True)`, give them once the layer is on the "
                "device where it stays, or write `prequantized = true` in the layer's format: codes and scales come "
                "back exactly."
            )

    def check_codes(self, weight: Weight, tensor: torch.Tensor) -> None:
        """Raise RangeError for codes that their format does not hold: packing would cut off their upper bits."""
        stored = self._codes.get(weight.name)
        format = None if stored is None else FORMATS[stored.format]
        if stored is not None and format is not None and not format.floats and tensor.numel():
            lowest, highest = (int(bound.cpu()) for bound in tensor.aminmax())
            if lowest < format.lowest or highest > format.highest:
                raise RangeError(
                    f"weight {weight.name!r} holds codes from {lowest} to {highest}; {stored.format} has those from "
                    f"{format.lowest} to {format.highest}"
                )

    def refresh(self, tensors: Sequence[torch.Tensor]) -> None:
        """Pack those of `tensors` (all weights, in order) that are not what was packed last.

        A tensor has changed when its memory is another or its version counter moved on.  Writes past torch (through
        NumPy, or `.data[...] = `) leave no trace: `forget` makes the next refresh pack everything.
        """
        if [_stamp(tensor) for tensor in tensors] == self._stamps:
            return
        with self._lock:
            for index, tensor in enumerate(tensors):
                stamp = _stamp(tensor)
                if stamp != self._stamps[index]:
                    self.pack(index, tensor)
                    self._stamps[index], self._packed_from[index] = stamp, tensor.detach()

    def mark_blank(self, tensors: Sequence[torch.Tensor]) -> None:
        """Remember `tensors` (all weights, in order) as they are: those that are missing hold no values yet."""
        self.blank = {
            i: (t, _stamp(t))
            for i, t in enumerate(tensors)
            if self.weights[i].name in self.missing and not stands_in(t)
        }

    def missing_now(self) -> tuple[str, ...]:
        """`missing`, less what was written since it was marked as blank."""
        for index, (tensor, stamp) in list(self.blank.items()):
            if _stamp(tensor) != stamp:
                self.missing.pop(self.weights[index].name, None)
                self.blank.pop(index, None)  # another thread may have seen it, too
        return tuple(self.missing)

    # torch's compiler runs it instead of tracing it.  `torch.compiler.assume_constant_result` makes the same mark, and
    # imports the compiler for it: 2 s for every process that loads a layer.
    missing_now._dynamo_marked_constant = True  # type: ignore[attr-defined]

    def forget(self) -> None:
        """Take nothing for packed, and hold no tensor."""
        self._stamps = [None] * len(self.weights)
        self._packed_from = [None] * len(self.weights)


_OWNERS: weakref.WeakValueDictionary[int, PackedWeights] = weakref.WeakValueDictionary()


def owner(buffer: torch.Tensor) -> PackedWeights | None:
    """Whose `buffer` this is; None where it belongs to no layer of this process."""
    return _OWNERS.get(buffer.data_ptr())


_ADOPTED: dict[tuple[str, str, int], PackedWeights] = {}


def adopted(kernel: Kernel, weights: Sequence[torch.Tensor]) -> PackedWeights:
    """Packed weights for ordinary ones that belong to no layer, such as those of an exported program.

    They are packed when they come for the first time or have changed, and live as long as the first weight does.
    """
    if len(weights) != len(kernel.library.manifest.parameters):
        raise InputError(f"moec::run: {len(kernel.library.manifest.parameters)} weights, not {len(weights)}")
    first = id(weights[0]) if weights else 0
    key = (kernel.library.sha256, kernel.variant, first)
    store = _ADOPTED.get(key)
    if store is None:
        store = _ADOPTED[key] = PackedWeights(kernel, keep=True)
        if weights:
            weakref.finalize(weights[0], _ADOPTED.pop, key, None)
    store.refresh(weights)
    return store


def check_weight(weight: Weight, tensor: torch.Tensor, device: torch.device = _CPU) -> None:
    """Raise a subclass of InputError unless `tensor` can be `weight` of a layer whose weights are on `device`."""
    name = f"weight {weight.name!r}"
    if not isinstance(tensor, torch.Tensor):
        raise InputError(f"{name} must be a torch.Tensor, not {type(tensor).__name__}")
    wrapped: bool = is_traceable_wrapper_subclass(tensor)
    if wrapped:
        raise InputError(f"{name} is a {type(tensor).__name__}; give an ordinary tensor with all of its values")
    if tuple(tensor.shape) != weight.shape:
        raise ShapeError(f"{name} must have shape {list(weight.shape)}, not {list(tensor.shape)}")
    if tensor.layout is not torch.strided or tensor.is_quantized:
        raise LayoutError(f"{name} must be an ordinary dense tensor; call `.to_dense()` or `.dequantize()` first")
    if tensor.dtype is not TORCH_DTYPES[weight.dtype]:
        raise DtypeError(f"{name} must be {TORCH_DTYPES[weight.dtype]}, not {tensor.dtype}")
    if tensor.device.type == "meta":
        raise DeviceError(f"{name} is on the meta device and holds no values; take them from a state_dict")
    if tensor.device != device:
        if device.type == "cpu":
            raise DeviceError(f"{name} is on {tensor.device}; this layer runs on the CPU: call `.cpu()` first")
        raise DeviceError(f"{name} is on {tensor.device}; this layer is on {device}: call `.to({str(device)!r})` first")


def _stamp(tensor: torch.Tensor) -> _Stamp:
    # An inference tensor has no version counter; only another memory tells that it changed.
    return tensor.data_ptr(), -1 if tensor.is_inference() else tensor._version
