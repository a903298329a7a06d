"""Files of tensors, in the form of safetensors: a size (u64), a JSON header, raw bytes.  Nothing in them is ever run.

Parts of tensors say in the header's `__metadata__`, under `parts`, of which tensor they are and where they begin.
"""

from __future__ import annotations

import json
import math
import mmap
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from moec.errors import CheckpointError

DTYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F8_E4M3": torch.float8_e4m3fn,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_MOST_HEADER = 2**27  # bytes
_ALIGNMENT = 8


@dataclass(frozen=True)
class Part:
    """A whole tensor (`offsets` are zeros and `shape` is `whole`), or a block of one.

    key      the tensor's name in the checkpoint
    whole    its shape
    offsets  where the block begins in it
    shape    the block's own shape
    """

    key: str
    dtype: torch.dtype
    whole: tuple[int, ...]
    offsets: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Size of the block in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def name(self) -> str:
        """The block's name in the file."""
        return self.key if self.shape == self.whole else f"{self.key}@{','.join(map(str, self.offsets))}"


@dataclass(frozen=True)
class Stored:
    """Where a block lies: in the file of that name (in the checkpoint's folder), `begin` bytes from its start."""

    part: Part
    file: str
    begin: int


def write_tensors(path: Path, tensors: Sequence[tuple[Part, torch.Tensor]]) -> None:
    """Write the blocks, durably.  Raises CheckpointError for a dtype that the form does not have."""
    # Large elements first, as safetensors do, so that each tensor is aligned.
    ordered = sorted(tensors, key=lambda one: (-one[0].dtype.itemsize, one[0].name))
    header: dict[str, Any] = {}
    parts: dict[str, Any] = {}
    begin = 0
    for part, _ in ordered:
        if part.dtype not in _NAMES:
            raise CheckpointError(f"{part.key}: checkpoints have no elements of {part.dtype}")
        where = [begin, begin + part.nbytes]
        header[part.name] = {"dtype": _NAMES[part.dtype], "shape": list(part.shape), "data_offsets": where}
        if part.name != part.key:
            parts[part.name] = {"key": part.key, "whole": list(part.whole), "offsets": list(part.offsets)}
        begin += part.nbytes
    header["__metadata__"] = {"format": "pt", "parts": json.dumps(parts)}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for _, tensor in ordered:
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            file.write(flat.view(torch.uint8).numpy().data)
        file.flush()
        os.fsync(file.fileno())


def read_header(path: Path) -> list[Stored]:
    """What blocks a file holds.  Raises CheckpointError unless the header is sound and every block inside the file."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > min(size - 8, _MOST_HEADER):
                raise CheckpointError(f"{path}: cut short, or not of this form")
            header = json.loads(file.read(length))
        parts = json.loads(header.pop("__metadata__", {}).get("parts", "{}"))
        found = [_stored(name, said, parts.get(name), path.name, 8 + length) for name, said in header.items()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: not a file of tensors: {error}") from error
    for one in found:
        if one.begin + one.part.nbytes > size:
            raise CheckpointError(f"{path}: cut short: {one.part.key} ends behind the end of the file")
    return found


def _stored(name: str, said: Mapping[str, Any], part: Mapping[str, Any] | None, file: str, data: int) -> Stored:
    shape = _numbers(said["shape"])
    whole = shape if part is None else _numbers(part["whole"])
    offsets = (0,) * len(shape) if part is None else _numbers(part["offsets"])
    if not len(whole) == len(offsets) == len(shape):
        raise ValueError(f"{name}: ranks differ")
    if any(at + size > most for at, size, most in zip(offsets, shape, whole, strict=True)):
        raise ValueError(f"{name}: outside of its tensor")
    block = Part(str(name if part is None else part["key"]), DTYPES[said["dtype"]], whole, offsets, shape)
    begin, end = _numbers(said["data_offsets"])
    if end - begin != block.nbytes:
        raise ValueError(f"{name}: {end - begin} bytes, where its shape has {block.nbytes}")
    return Stored(block, file, data + begin)


def _numbers(said: Any) -> tuple[int, ...]:
    if not isinstance(said, list) or not all(type(one) is int and 0 <= one < 2**62 for one in said):
        raise ValueError(f"{said!r} is no list of sizes")
    return tuple(said)


def mapped(path: Path, stored: Stored) -> torch.Tensor:
    """The block as a tensor on the file's pages, which are read when it is copied.  Not to be written to."""
    part = stored.part
    if not part.nbytes:
        return torch.empty(part.shape, dtype=part.dtype, device="cpu")
    with path.open("rb") as file:
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    flat = torch.frombuffer(pages, dtype=torch.uint8, count=part.nbytes, offset=stored.begin)
    return flat.view(part.dtype).reshape(part.shape)
