"""Calls of a layer's functions by the native interface, whose memory is looked at afterwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from bench.cuda.steps.call import Call
from bench.cuda.steps.check import Finding, check
from bench.cuda.steps.kept import held, seen_by_operations
from bench.cuda.steps.record import Function, functions
from moec.runtime.cuda.opened import Entry, opened
from moec.runtime.dtypes import TORCH_DTYPES
from moec.runtime.module import Layer
from moec.runtime.step import Step

_POISON = 0xFF  # NaN as floats
_POISONED_NUMBER = 0x5A  # of integers, where -1 means something


class Kernels:
    """The kernels of a layer that is on a CUDA device.

    seen  the tensor whose memory a tensor on the device has: itself, but for devices that are a stand-in
    """

    def __init__(
        self, path: Path, layer: Layer, seen: Callable[[torch.Tensor], torch.Tensor] = lambda tensor: tensor
    ) -> None:
        self.functions: dict[str, Function] = functions(path)
        self._manifest = layer.manifest
        self._weights = held(layer)
        self._device = self._weights[0].device
        self._opened = opened(layer.sha256, self._device.index)
        self._seen = seen

    @property
    def architecture(self) -> str:
        return self._opened.architecture

    def regimes(self, most: int) -> list[int]:
        """Numbers of tokens, at most `most`, that every kernel is launched for: around each limit."""
        found = {0, 1}
        for function in self.functions.values():
            for kernel in function.code[self.architecture].kernels:
                found |= {kernel.first, max(kernel.first, (kernel.end or kernel.first + 2) - 1)}
        return sorted(count for count in found if count <= most)

    def names(self, function: str) -> list[str]:
        """Of all kernels of a function."""
        return [kernel.name for kernel in self.functions[function].code[self.architecture].kernels]

    def run(self, x: torch.Tensor) -> list[Finding]:
        """What every kernel of an inference wrote."""
        outputs = [self._filled((len(x), *one.row), TORCH_DTYPES[one.dtype]) for one in self._manifest.outputs]
        unobserved = [None] * len(self._manifest.statistics)
        return self._call("run", self._opened.run, len(x), [x, *outputs, *unobserved])

    def step(self, x: torch.Tensor, seed: torch.Tensor) -> list[Finding]:
        """What every kernel of a step of training wrote; `seed` is the gradient of the result."""
        step = Step.of(self._manifest)
        forward, backward = self._opened.forward, self._opened.backward
        if step is None or forward is None or backward is None:
            raise ValueError(f"{self._manifest.layer} was compiled for inference only")
        results = [self._filled(one.shape(len(x)), one.dtype) for one in step.results]
        findings = self._call("forward", forward, len(x), [x, *results])
        saved = results[len(step.outputs) + len(step.loss_tensors) :]
        taken = [x, *self._weights]
        gradients = [self._filled(taken[i].shape, taken[i].dtype) for i in step.gradients]
        return findings + self._call("backward", backward, len(x), [x, *saved, seed, *gradients])

    def _call(self, name: str, entry: Entry, tokens: int, tensors: Sequence[torch.Tensor | None]) -> list[Finding]:
        function = self.functions[name]
        workspace = self._filled((entry.workspace_bytes(tokens),), torch.uint8)
        code = function.code[self.architecture]
        for area, place in zip(code.areas, code.places(tokens), strict=True):
            if area.numbers or (area.value is not None and function.values[area.value].dtype in ("i32", "i64")):
                self._seen(workspace)[place] = _POISONED_NUMBER
        entry.launch(entry.bound(self._weights), workspace, tensors)
        known = seen_by_operations(function, self._manifest, [self._seen(weight) for weight in self._weights])
        known |= {
            number: self._seen(tensor)
            for number, tensor in zip(function.given, tensors, strict=True)
            if tensor is not None
        }
        return check(Call(function, self.architecture, tokens, known, self._seen(workspace)))

    def _filled(self, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        made = torch.empty(tuple(shape), dtype=dtype, device=self._device)
        numbers = dtype in (torch.int32, torch.int64)
        self._seen(made).view(torch.uint8).fill_(_POISONED_NUMBER if numbers else _POISON)
        return made
