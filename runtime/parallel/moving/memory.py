"""Where the weights of experts lie on a rank, slot by slot, as bytes that can travel."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

import torch

from moec.errors import WeightsError
from moec.runtime.dtypes import TORCH_DTYPES
from moec.runtime.memory import allocate
from moec.runtime.native import layout
from moec.runtime.packing.weights import PackedWeights

Pieces = tuple[torch.Tensor, ...]
"""Contiguous tensors of u8, one behind the other."""


class SlotMemory(Protocol):
    """The experts' weights of one layer on this rank.

    slots   how many there are
    form    ranks of equal form lay the same weights of an expert into the same bytes of a slot
    plain   ranks of equal plain form understand each other's ordinary weights
    """

    @property
    def slots(self) -> int: ...

    @property
    def form(self) -> str: ...

    @property
    def plain(self) -> str: ...

    def pieces(self, slot: int) -> Pieces:
        """The bytes of a slot themselves."""
        ...

    def ordinary(self, slot: int) -> Pieces:
        """Its ordinary weights, for ranks of another form.  Raises WeightsError where the form keeps less than them."""
        ...

    def room(self) -> Pieces:
        """New memory for what `ordinary` gives."""
        ...

    def formed(self, ordinary: Pieces) -> Pieces:
        """What `pieces` would give for an expert of these ordinary weights; in new memory."""
        ...


class PackedSlots:
    """The packed weights of a layer whose routed experts are slots: the manifest says which bytes are whose.

    Ranks that run the same variant have the same form.  Others get ordinary weights, which are unpacked and packed;
    that takes, for a while, memory for all slots once more.

    Raises WeightsError where the packed form does not say where experts lie.
    """

    def __init__(self, store: PackedWeights) -> None:
        self._store = store
        manifest, variant = store.kernel.library.manifest, layout(store.kernel)
        self._ranges: dict[int, list[tuple[int, int]]] = {}
        for region in variant.regions:
            for place, slot in enumerate(region.experts):
                if slot >= 0:
                    self._ranges.setdefault(slot, []).append((region.offset + place * region.stride, region.stride))
        self._slots = len(self._ranges)
        sizes = [[nbytes for _, nbytes in ranges] for ranges in self._ranges.values()]
        if sorted(self._ranges) != list(range(self._slots)) or not sizes or any(each != sizes[0] for each in sizes):
            raise WeightsError(f"{manifest.layer}: its packed form does not say where each expert lies")
        self._weights = [index for index, weight in enumerate(store.weights) if weight.shape[:1] == (self._slots,)]
        rows = [f"{store.weights[i].name} {store.weights[i].dtype} {store.weights[i].shape[1:]}" for i in self._weights]
        self._form = _digest("packed", variant.layout, *rows)
        self._plain = _digest("plain", *rows)

    @property
    def slots(self) -> int:
        return self._slots

    @property
    def form(self) -> str:
        return self._form

    @property
    def plain(self) -> str:
        return self._plain

    def pieces(self, slot: int) -> Pieces:
        self._store.reserve()
        return self._cut(self._store.buffer, slot)

    def ordinary(self, slot: int) -> Pieces:
        return tuple(_bytes(self._store.value(index)[slot]) for index in self._weights)

    def room(self) -> Pieces:
        found = []
        for index in self._weights:
            weight = self._store.weights[index]
            found.append(torch.empty(weight.nbytes // self._slots, dtype=torch.uint8))
        return tuple(found)

    def formed(self, ordinary: Pieces) -> Pieces:
        packed = allocate(int(self._store.kernel.call("packed_bytes")))
        for index, given in zip(self._weights, ordinary, strict=True):
            weight = self._store.weights[index]
            tensor = torch.zeros(weight.shape, dtype=TORCH_DTYPES[weight.dtype])
            _bytes(tensor[0]).copy_(given)
            self._store.kernel.call("pack", index, packed, tensor)
        return tuple(piece.clone() for piece in self._cut(packed, 0))

    def _cut(self, buffer: torch.Tensor, slot: int) -> Pieces:
        return tuple(buffer[begin : begin + nbytes] for begin, nbytes in self._ranges[slot])


class AsTheyLie(ABC):
    """Memory whose bytes travel as they lie, between ranks of the same form only."""

    def __init__(self, slots: int, form: str) -> None:
        self._slots, self._form = slots, form

    @property
    def slots(self) -> int:
        return self._slots

    @property
    def form(self) -> str:
        return self._form

    @property
    def plain(self) -> str:
        return self._form

    @abstractmethod
    def pieces(self, slot: int) -> Pieces: ...

    def ordinary(self, slot: int) -> Pieces:
        return self.pieces(slot)

    def room(self) -> Pieces:
        return tuple(torch.empty_like(piece) for piece in self.pieces(0))

    def formed(self, ordinary: Pieces) -> Pieces:
        return ordinary


class WholeWeights(AsTheyLie):
    """All packed weights of some layers as one slot: what every rank that takes part has the same.

    Ranks must run the same variants.
    """

    def __init__(self, stores: Sequence[PackedWeights]) -> None:
        kernels = [store.kernel for store in stores]
        super().__init__(1, _digest("whole", *(f"{k.library.sha256} {layout(k).layout}" for k in kernels)))
        self._stores = tuple(stores)

    def pieces(self, slot: int) -> Pieces:
        for store in self._stores:
            store.reserve()
        return tuple(store.buffer for store in self._stores)


def nbytes(pieces: Sequence[torch.Tensor]) -> int:
    """Bytes of all pieces."""
    return sum(piece.numel() for piece in pieces)


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    """The same memory as u8[n]."""
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def _digest(*lines: str) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
