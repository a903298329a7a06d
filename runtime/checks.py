"""What a call is given: bound to the layer's inputs, checked, and flattened to one row a token."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from moec.artifact.manifest import Manifest, TokenTensor
from moec.errors import DeviceError, DtypeError, InputError, LayoutError, RangeError, ShapeError
from moec.runtime.dtypes import TORCH_DTYPES

_INT32_MIN, _INT32_MAX = -(2**31), 2**31 - 1
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Input:
    """One input: its name for messages, the row of each token, and whether one integer may stand for all tokens."""

    name: str
    row: tuple[int, ...]
    dtype: torch.dtype
    may_be_shared: bool

    @classmethod
    def of(cls, tensor: TokenTensor) -> Input:
        dtype = TORCH_DTYPES[tensor.dtype]
        return cls(tensor.name, tensor.row, dtype, tensor.row == () and dtype is torch.int32)


@dataclass(frozen=True)
class Signature:
    """The inputs of a layer in order."""

    layer: str
    inputs: tuple[Input, ...]
    on_cuda: bool
    """Whether there is code for CUDA devices."""

    @classmethod
    def of(cls, manifest: Manifest) -> Signature:
        inputs = tuple(Input.of(tensor) for tensor in manifest.inputs)
        return cls(manifest.layer, inputs, manifest.cuda is not None)

    def bind(self, positional: Sequence[Any], named: Mapping[str, Any]) -> Sequence[Any]:
        """The arguments of a call in the order of the inputs."""
        if not named and len(positional) == len(self.inputs):
            return positional
        names = [spec.name for spec in self.inputs]
        values = dict(zip(names, positional, strict=False))
        twice = [name for name in named if name in values]
        unknown = [name for name in named if name not in names]
        missing = [name for name in names if name not in values and name not in named]
        if len(positional) > len(names) or twice or unknown or missing:
            wrong = (
                [f"{len(positional)} were given by position"] * (len(positional) > len(names))
                + [f"{name!r} was given twice" for name in twice]
                + [f"{name!r} is not one of them" for name in unknown]
                + [f"{name!r} is missing" for name in missing]
            )
            raise InputError(f"{self.layer} takes ({', '.join(names)}): {'; '.join(wrong)}")
        values.update(named)
        return [values[name] for name in names]

    def cast(self, values: Sequence[Any]) -> list[Any]:
        """What torch.autocast does for an operator with a dtype of its own: floats are converted to it."""
        return [
            value.to(spec.dtype)
            if isinstance(value, torch.Tensor) and value.is_floating_point() and spec.dtype.is_floating_point
            else value
            for spec, value in zip(self.inputs, values, strict=True)
        ]

    def flatten(self, values: Sequence[Any], device: torch.device = _CPU) -> tuple[list[torch.Tensor], tuple[int, ...]]:
        """Check every value, all on `device`, and give it the shape `(T, *row)`; also the shape that the tokens had.

        An input of integers, one a token, may be given as an int or a 0-d integer tensor: the same for every token.
        """
        leading: tuple[int, ...] | None = None
        first = ""
        flat = []
        shared = False
        for spec, value in zip(self.inputs, values, strict=True):
            if spec.may_be_shared and _is_scalar(value):
                shared = True
                flat.append(value)
                continue
            if not _acceptable(spec, value, device):
                raise _objection(self.layer, spec, value, device, self.on_cuda)
            rank = len(spec.row)
            shape = value.shape[: value.ndim - rank]
            if leading is None:
                leading, first = shape, spec.name
            elif shape != leading:
                raise ShapeError(
                    f"{self.layer}: {spec.name!r} is for {_tokens(shape)}, but {first!r} is for {_tokens(leading)}"
                )
            flat.append(value if value.ndim == rank + 1 else value.view(-1, *spec.row))
        if leading is None:
            leading = ()
        if shared:
            tokens = math.prod(leading)
            for index, spec in enumerate(self.inputs):
                if spec.may_be_shared and _is_scalar(values[index]):
                    flat[index] = self._shared(spec, values[index], tokens, device)
        return flat, leading

    def _shared(self, spec: Input, value: Any, tokens: int, device: torch.device) -> torch.Tensor:
        if isinstance(value, torch.Tensor):
            if value.device != device or value.dtype not in (torch.int32, torch.int64):
                raise _objection(self.layer, spec, value, device, self.on_cuda)
            return value.to(torch.int32).expand(tokens).contiguous()
        if not _INT32_MIN <= value <= _INT32_MAX:
            raise RangeError(f"{self.layer}: {spec.name!r} must fit 32 bits; {value} does not")
        return torch.full((tokens,), value, dtype=torch.int32, device=device)


def _is_scalar(value: object) -> bool:
    if isinstance(value, torch.Tensor):
        return value.ndim == 0
    return isinstance(value, int | torch.SymInt) and not isinstance(value, bool)


def _acceptable(spec: Input, value: Any, device: torch.device) -> bool:
    if not isinstance(value, torch.Tensor):
        return False
    rank = len(spec.row)
    return (
        value.dtype is spec.dtype
        and not value.is_nested
        and value.layout is torch.strided
        and value.device == device
        and value.ndim >= rank
        and value.shape[value.ndim - rank :] == spec.row
        and value.is_contiguous()
    )


def _objection(layer: str, spec: Input, value: Any, device: torch.device, on_cuda: bool) -> InputError:
    """Why `value` was not acceptable: the first reason in the order in which a person would want to know."""
    name = f"{layer}: input {spec.name!r}"
    shape = ", ".join(["…", *map(str, spec.row)])
    if not isinstance(value, torch.Tensor):
        alternative = ", an int for all tokens" if spec.may_be_shared else ""
        return InputError(f"{name} must be a torch.Tensor{alternative}, not {type(value).__name__}")
    if value.is_quantized:
        return DtypeError(f"{name} is quantised ({value.dtype}); call `.dequantize().to({spec.dtype})`")
    if value.is_nested:
        return LayoutError(f"{name} is a nested tensor; call the layer with all rows, `torch.cat(x.unbind())`")
    if value.layout is not torch.strided:
        return LayoutError(f"{name} is a {value.layout} tensor; call `.to_dense()`")
    if value.device.type == "meta":
        return DeviceError(f"{name} is on the meta device and holds no values")
    if value.device != device:
        if not on_cuda:
            return DeviceError(f"{name} is on {value.device}; this layer is compiled for the CPU: call `.cpu()`")
        return DeviceError(
            f"{name} is on {value.device}, and the layer is on {device}: move one of them, with `.to({str(device)!r})` "
            f"or `layer.to({str(value.device)!r})`"
        )
    if value.dtype is not spec.dtype:
        return DtypeError(f"{name} must be {spec.dtype}, not {value.dtype}; call `.to({spec.dtype})`")
    if tuple(value.shape[max(value.ndim - len(spec.row), 0) :]) != spec.row:
        return ShapeError(f"{name} must have shape [{shape}], not {list(value.shape)}")
    return LayoutError(f"{name} is not contiguous (strides {list(value.stride())}); call `.contiguous()`")


def _tokens(shape: tuple[int, ...]) -> str:
    return f"tokens of shape {list(shape)}"
