"""A storage of `torch.distributed.checkpoint` without pickle: one file of tensors a rank, and an index in JSON.

torch's own file storage keeps its index as a pickle, which runs whatever code the file says when it is read; this one
can be given a stranger's checkpoint.  Ranks write and read without talking to each other: what each file holds stands
in its header, and who loads reads all headers.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import (
    LoadPlan,
    LoadPlanner,
    SavePlan,
    SavePlanner,
    WriteItem,
    WriteItemType,
)
from torch.distributed.checkpoint.storage import StorageReader, StorageWriter, WriteResult
from torch.futures import Future

from moec.errors import CheckpointError
from moec.runtime.parallel.checkpoints.files import Part, Stored, mapped, read_header, write_tensors

_FAMILY = re.compile(r"(.+)\.(0|[1-9][0-9]*)")


def file_of(rank: int) -> str:
    """The name of a rank's file."""
    return f"rank_{rank:05}.safetensors"


class TensorWriter(StorageWriter):
    """Writes the tensors of one rank's state dict into its file in `folder`.  Other values are refused."""

    def __init__(self, folder: Path, rank: int) -> None:
        super().__init__()
        self.path = folder / file_of(rank)

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """Nothing: a writer is for one checkpoint."""

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Make the folder."""
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """As planned."""
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """As planned."""
        return plans

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Write all of the plan.  Raises CheckpointError for what is no tensor."""
        found = [(_part(item), planner.resolve_data(item)) for item in plan.items]
        write_tensors(self.path, [(part, tensor) for part, tensor in found if isinstance(tensor, torch.Tensor)])
        done: Future[list[WriteResult]] = Future()
        done.set_result(
            [WriteResult(item.index, part.nbytes, None) for item, (part, _) in zip(plan.items, found, strict=True)]
        )
        return done

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Nothing: what a file holds stands in its header."""

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """Is it a path?"""
        return "://" not in str(checkpoint_id)


def _part(item: WriteItem) -> Part:
    data = item.tensor_data
    if item.type is WriteItemType.BYTE_IO or data is None:
        raise CheckpointError(f"{item.index.fqn} is no tensor; other values belong into `extra`")
    chunk = data.chunk
    return Part(item.index.fqn, data.properties.dtype, tuple(data.size), tuple(chunk.offsets), tuple(chunk.sizes))


class TensorReader(StorageReader):
    """Reads what the ranks' `files` in `folder` hold; each rank reads for itself, only what it needs.

    Tensors `x.0`, `x.1`, ... of one shape are there as one tensor `x` too, and those of `wanted` that are missing as
    blocks of a larger one the other way round: so it does not matter whether who saved kept experts together.
    Raises CheckpointError for files that are not sound.
    """

    def __init__(self, folder: Path, files: Iterable[str], wanted: Collection[str] = ()) -> None:
        super().__init__()
        self.folder = folder
        blocks: dict[str, dict[tuple[int, ...], Stored]] = {}
        for name in files:
            for stored in read_header(folder / name):
                # Copies of an expert lie on several ranks, and are the same.
                blocks.setdefault(stored.part.key, {}).setdefault(stored.part.offsets, stored)
        self.stored = {key: list(found.values()) for key, found in blocks.items()}
        for key, found in self.stored.items():
            if len({(one.part.dtype, one.part.whole) for one in found}) > 1:
                raise CheckpointError(f"{folder}: blocks of {key} differ in what they are blocks of")
        self.stored = {**_families(self.stored), **self.stored}
        self.stored |= _members(self.stored, wanted)

    def check(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Raises CheckpointError unless all of `tensors` can be read: they are there, whole, of these shapes."""
        missing = sorted(set(tensors) - set(self.stored))
        if missing:
            raise CheckpointError(f"{self.folder} lacks {len(missing)} tensors, the first of them {missing[0]}")
        for key, tensor in tensors.items():
            found = self.stored[key]
            part = found[0].part
            if tuple(tensor.shape) != part.whole or tensor.dtype != part.dtype:
                is_there, asked = _kind(part.dtype, part.whole), _kind(tensor.dtype, tensor.shape)
                raise CheckpointError(f"{self.folder}: {key} is {is_there}, and the model's is {asked}")
            # Blocks begin at different places and lie inside; if they are as many elements as the whole, none lacks.
            if sum(one.part.nbytes for one in found) != math.prod(part.whole) * part.dtype.itemsize:
                raise CheckpointError(f"{self.folder}: {key} is not whole")

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """Nothing: a reader is for one checkpoint."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """What there is, as torch's planners want it."""
        return Metadata({key: _metadata(found) for key, found in self.stored.items()})

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Nothing to set up."""

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        """As planned."""
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        """As planned."""
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """Copy what is planned into the tensors of the state dict."""
        at = {_index(stored): stored for found in self.stored.values() for stored in found}
        for item in plan.items:
            stored = at[item.storage_index]
            block = mapped(self.folder / stored.file, stored)
            for dimension, (begin, size) in enumerate(zip(item.storage_offsets, item.lengths, strict=True)):
                block = block.narrow(dimension, begin, size)
            target = planner.resolve_tensor(item)
            target.detach().copy_(block)
            planner.commit_tensor(item, target)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """Is it a path?"""
        return "://" not in str(checkpoint_id)


def _kind(dtype: torch.dtype, shape: Sequence[int]) -> str:
    return f"{str(dtype).removeprefix('torch.')} {list(shape)}"


def _index(stored: Stored) -> MetadataIndex:
    return MetadataIndex(stored.part.key, stored.part.offsets)


def _metadata(found: list[Stored]) -> TensorStorageMetadata:
    part = found[0].part
    chunks = [ChunkStorageMetadata(torch.Size(one.part.offsets), torch.Size(one.part.shape)) for one in found]
    return TensorStorageMetadata(TensorProperties(dtype=part.dtype), torch.Size(part.whole), chunks)


def _families(stored: Mapping[str, list[Stored]]) -> dict[str, list[Stored]]:
    """Those tensors whose slices `key.0`, `key.1`, ... are all there."""
    members: dict[str, dict[int, list[Stored]]] = {}
    for key, found in stored.items():
        if (match := _FAMILY.fullmatch(key)) is not None:
            members.setdefault(match[1], {})[int(match[2])] = found
    families = {}
    for key, slices in members.items():
        kinds = {(one.part.dtype, one.part.whole) for found in slices.values() for one in found}
        if len(kinds) == 1 and max(slices) + 1 == len(slices):
            families[key] = [_behind(key, len(slices), i, one) for i, found in slices.items() for one in found]
    return families


def _behind(key: str, count: int, index: int, one: Stored) -> Stored:
    part = one.part
    block = Part(key, part.dtype, (count, *part.whole), (index, *part.offsets), (1, *part.shape))
    return replace(one, part=block)


def _members(stored: Mapping[str, list[Stored]], wanted: Collection[str]) -> dict[str, list[Stored]]:
    """Those of `wanted` that are a slice of a tensor that is there."""
    members = {}
    for key in wanted:
        match = _FAMILY.fullmatch(key)
        if key in stored or match is None or match[1] not in stored:
            continue
        index = int(match[2])
        slices = [_slice(key, index, one) for one in stored[match[1]] if one.part.whole]
        if found := [one for one in slices if one is not None]:
            members[key] = found
    return members


def _slice(key: str, index: int, one: Stored) -> Stored | None:
    part = one.part
    within = index - part.offsets[0]
    if not 0 <= within < part.shape[0]:
        return None
    block = Part(key, part.dtype, part.whole[1:], part.offsets[1:], part.shape[1:])
    return Stored(block, one.file, one.begin + within * block.nbytes)
