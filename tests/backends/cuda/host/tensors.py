"""Tensors that say they are on a CUDA device, on a machine without one: their memory is the CPU's.

Within `cuda()` torch makes such tensors where it is asked for ones on a CUDA device, and moec's operator takes the way
that it takes for CUDA tensors; the kernels run on the simulator.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from moec.runtime.cuda import operator, torch_device
from tests.backends.cuda.host.driver import Driver, driver, on_gpu

STREAM = 42


class CudaTensor(torch.Tensor):
    """A tensor on a device that is not there; `inner` has its values."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor, device: torch.device) -> CudaTensor:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=torch.device("cuda", device.index or 0),
            requires_grad=inner.requires_grad,
        )
        made.inner = inner
        return made

    def data_ptr(self) -> int:
        return self.inner.data_ptr()

    def untyped_storage(self) -> Any:
        return self.inner.untyped_storage()

    def copy_(self, source: torch.Tensor, non_blocking: bool = False) -> CudaTensor:
        # Past torch's dispatcher, which would look for the device first.
        self.inner.copy_(source.inner if isinstance(source, CudaTensor) else source)
        torch.autograd.graph.increment_version(self)
        return self

    def __repr__(self, *_: Any, **__: Any) -> str:
        return f"CudaTensor({self.inner}, device={self.device})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    found: list[torch.device] = []
    tree_map_only(CudaTensor, lambda t: found.append(t.device), (args, kwargs))
    if func.namespace == "moec" and found:
        with _Mode():
            return getattr(operator, func._opname)(*args, **kwargs)
    device = kwargs.get("device")
    target = torch.device(device) if device is not None else (found[0] if found else torch.device("cpu"))
    if func._schema.name == "aten::copy_" and isinstance(args[1], CudaTensor) and not isinstance(args[0], CudaTensor):
        target = torch.device("cpu")
    if device is not None:
        kwargs = {**kwargs, "device": "cpu"}
    if str(func) == "aten.empty.memory_format" and target.type == "cuda":
        return CudaTensor(_memory(args[0], kwargs["dtype"]), target)
    bare, bare_kwargs = tree_map_only(CudaTensor, lambda t: t.inner, (args, kwargs))
    result = func(*bare, **bare_kwargs)
    in_place = func._schema.name.endswith("_") and not func._schema.name.endswith("__")
    if in_place and isinstance(args[0], torch.Tensor):
        return args[0]
    if target.type != "cuda":
        return result
    return tree_map_only(torch.Tensor, lambda t: CudaTensor(t, target), result)


def _memory(shape: list[int], dtype: torch.dtype) -> torch.Tensor:
    """Poisoned, and aligned as torch's allocator of CUDA memory does."""
    count = math.prod(shape) * dtype.itemsize
    whole = torch.full((count + 512,), 0xFF, dtype=torch.uint8)
    return whole[-whole.data_ptr() % 512 :][:count].view(dtype).view(shape)


def _argument(tensor: torch.Tensor) -> object:
    assert isinstance(tensor, CudaTensor)
    return on_gpu(tensor.inner, tensor.device.index)


@contextmanager
def cuda(*capabilities: int) -> Iterator[Driver]:
    """A machine with CUDA devices of these compute capabilities."""
    fake = driver()
    fake.reset(capabilities)
    patch = pytest.MonkeyPatch()
    patch.setattr(torch.cuda, "_lazy_init", lambda: None)
    patch.setattr(torch_device, "current_stream", lambda index: STREAM + index)
    patch.setattr(torch_device, "is_capturing", lambda: False)
    patch.setattr(torch_device, "describe", lambda index: f"a GPU (compute capability {capabilities[index] / 10})")
    patch.setattr(torch_device, "argument", _argument)
    patch.setattr("moec.runtime.cuda.opened._OPENED", {})
    try:
        with _Mode():
            yield fake
    finally:
        patch.undo()
