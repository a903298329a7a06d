"""Weights and samples in files that hold numbers and no code: safetensors, .npz, .npy.

Files may come from a stranger: everything is checked against what the layer takes before it is read.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moec.artifact.manifest import TokenTensor, Weight
from moec.errors import MoecError, WeightsError
from moec.fixed.scales import CalibrationError

MOST_SAMPLE_BYTES = 4 * 2**30
_MOST_HEADER = 100 * 2**20
_NPY_HEADER = 2**16
_ITEMS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I8": "<i1", "I32": "<i4", "I64": "<i8"}
_READ_AS = {"f32": "f", "bf16": "f", "i8": "i"}


@dataclass(frozen=True)
class Samples:
    """Rows of a layer's input, f64 [T, d], and the task of each, int64 [T]; None where the file has none."""

    x: NDArray[np.float64]
    tasks: NDArray[np.int64] | None


def read_weights(path: Path, weights: Sequence[Weight], prefix: str) -> dict[str, NDArray[Any]]:
    """The layer's tensors by name, rounded to their dtypes; in the file `prefix` stands in front of the names.

    Raises WeightsError where one is missing or is another, or where the file is none; OSError.
    """
    try:
        if path.suffix == ".safetensors":
            read = _Safetensors(path).read
        elif path.suffix == ".npz":
            read = _Npz(path).read
        else:
            raise WeightsError(
                f"{path}: weights are read from .safetensors and .npz; other files may hold code, so convert them with "
                "the program that wrote them"
            )
        return {one.name: _rounded(one, read(prefix + one.name, one.shape)) for one in weights}
    except (ValueError, KeyError, TypeError, OverflowError, zipfile.BadZipFile, RecursionError) as error:
        raise WeightsError(f"{path} does not hold the layer's weights: {error}") from error


def read_samples(path: Path, inputs: Sequence[TokenTensor]) -> Samples:
    """The samples in a .npy file (x alone) or in a .npz file (by the names of the inputs), of any leading shape.

    Raises CalibrationError where the file is none, or not of these inputs; OSError.
    """
    try:
        if path.stat().st_size > MOST_SAMPLE_BYTES:
            raise ValueError(f"it has more than {MOST_SAMPLE_BYTES >> 30} GiB; a few thousand rows are enough")
        if path.suffix == ".npy":
            # Unlike `np.load` it never tries another format, nor names one that runs code.
            found: dict[str, NDArray[Any]] = {inputs[0].name: np.lib.format.open_memmap(path, mode="r")}
        else:
            archive = _Npz(path)
            found = {one.name: archive.read(one.name, None) for one in inputs if archive.has(one.name)}
        width = inputs[0].row[0]
        x = _named(found, inputs[0].name)
        if x.ndim < 1 or x.shape[-1] != width or x.dtype.kind not in "fiu":
            raise ValueError(
                f"{inputs[0].name} has the shape {list(x.shape)} of {x.dtype}, not […, {width}] of numbers"
            )
        tasks = found[inputs[1].name] if len(inputs) > 1 and inputs[1].name in found else None
        if tasks is not None and tasks.dtype.kind not in "iu":
            raise ValueError(f"{inputs[1].name} holds {tasks.dtype}, not integers")
        rows = np.asarray(x, np.float64).reshape(-1, width)
        return Samples(rows, None if tasks is None else np.asarray(tasks, np.int64).reshape(-1))
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise CalibrationError(f"{path} does not hold samples of the layer's input: {error}") from error


class _Safetensors:
    """A length of 8 bytes, a JSON header of that length, and tensors one behind another."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if size > _MOST_HEADER:
                raise ValueError("its header is too long")
            header = json.loads(file.read(size))
        if not isinstance(header, dict):
            raise ValueError("its header is not an object")
        self._header: Mapping[str, Any] = header
        self._begin = 8 + size

    def read(self, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
        entry = _named(self._header, name)
        dtype, given, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        if dtype not in _ITEMS:
            raise ValueError(f"{name} is of {dtype}")
        _require_shape(name, given, shape)
        item = np.dtype(_ITEMS[dtype])
        size = math.prod(shape)
        if not (type(begin) is int and type(end) is int and begin >= 0 and end - begin == size * item.itemsize):
            raise ValueError(f"{name} lies outside of the file")
        flat = np.fromfile(self._path, item, size, offset=self._begin + begin)
        if len(flat) != size:
            raise ValueError(f"it ends within {name}")
        whole = (flat.astype(np.uint32) << 16).view(np.float32) if dtype == "BF16" else flat
        return whole.reshape(shape)


class _Npz:
    """A ZIP of .npy files."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with zipfile.ZipFile(path) as archive:
            self._sizes = {one.filename.removesuffix(".npy"): one.file_size for one in archive.infolist()}

    def has(self, name: str) -> bool:
        return name in self._sizes

    def read(self, name: str, shape: tuple[int, ...] | None) -> NDArray[Any]:
        size = _named(self._sizes, name)
        most = MOST_SAMPLE_BYTES if shape is None else math.prod(shape) * 8 + _NPY_HEADER
        if size > most:
            raise ValueError(f"{name} is too large")
        with np.load(self._path, allow_pickle=False) as archive:
            array: NDArray[Any] = archive[name]
            if not isinstance(array, np.ndarray):  # NumPy gives the bytes of what is no .npy file
                raise ValueError(f"{name} is not an array")
        if shape is not None:
            _require_shape(name, array.shape, shape)
        return array


def _named(entries: Mapping[str, Any], name: str) -> Any:
    if name not in entries:
        raise ValueError(f"there is no {name!r}")
    return entries[name]


def _require_shape(name: str, given: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if given != expected:
        raise ValueError(f"{name} has the shape {list(given)}, not {list(expected)}")


def _rounded(weight: Weight, values: NDArray[Any]) -> NDArray[Any]:
    """As PyTorch would hold them in the layer's dtype; bf16 in an f32 array."""
    if weight.dtype not in _READ_AS:
        raise MoecError(f"weights of {weight.dtype} cannot be read from files")
    if values.dtype.kind != _READ_AS[weight.dtype]:
        raise ValueError(f"{weight.name} holds {values.dtype}, and the layer takes {weight.dtype}")
    if weight.dtype != "bf16":
        return values.astype({"f32": np.float32, "i8": np.int8}[weight.dtype])
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view(np.float32)
