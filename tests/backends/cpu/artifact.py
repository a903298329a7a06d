"""Compiles kernel-level text and calls the library through tvm-ffi, as a developer would by hand."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tvm_ffi
from torch_mlir import ir

from moec.backends.cpu import backend, isa, layer, link
from moec.dialect import context
from tests.backends.cpu import native
from tests.guarded import guarded, guarded_copy

DTYPES = {
    "f32": torch.float32,
    "bf16": torch.bfloat16,
    "f16": torch.float16,
    "f64": torch.float64,
    "i8": torch.int8,
    "f8E4M3FN": torch.float8_e4m3fn,
    "i32": torch.int32,
}


@dataclass(frozen=True)
class Signature:
    """What a function that trains a layer takes (names) and gives (name, shape, dtype)."""

    arguments: list[str]
    results: list[tuple[str, list[int], str]]

    @staticmethod
    def of(function: layer.Layer) -> Signature:
        results = [(t.name, list(t.type.shape), str(t.type.element_type)) for t in function.outputs]
        return Signature([t.name for t in function.inputs], results)


class Artifact:
    """A compiled layer.  `variant` counts within the variants that it was compiled for: those of this machine."""

    def __init__(self, text: str, variants: Sequence[isa.Variant] | None = None) -> None:
        self.variants = tuple(variants or native.runnable())
        with context(), ir.Location.unknown():
            module = ir.Module.parse(text)
            self.object = backend.compile_object(module, self.variants)
            _module, (what, *training) = layer.prepare(module)
            self.inputs = [t.name for t in what.inputs]
            self.parameters = [t.name for t in what.parameters]
            self.functions = {function.entry: Signature.of(function) for function in training}
            self.outputs = {t.name: (list(t.type.shape), str(t.type.element_type)) for t in what.outputs}
        self._folder = tempfile.TemporaryDirectory()
        path = Path(self._folder.name) / "layer.so"
        path.write_bytes(link.link([self.object]))
        self.library: Any = tvm_ffi.load_module(str(path))

    def pack(self, parameters: Mapping[str, torch.Tensor], variant: int = 0) -> torch.Tensor:
        packed = aligned(self.library.packed_bytes(variant))
        for n, name in enumerate(self.parameters):
            self.library.pack(variant, n, packed, parameters[name])
        return packed

    def run(
        self,
        inputs: Mapping[str, torch.Tensor],
        parameters: Mapping[str, torch.Tensor] | None = None,
        *,
        variant: int = 0,
        threads: int = 1,
        rows_per_token: int = 1,
    ) -> dict[str, torch.Tensor]:
        given = [guarded_copy(inputs[name]) for name in self.inputs]
        tokens = given[0].shape[0]
        packed = self.pack(parameters or {}, variant)
        workspace = guarded((self.library.workspace_bytes(variant, tokens, threads),), torch.uint8, alignment=64)
        outputs = {}
        for name, (shape, dtype) in self.outputs.items():
            many = tokens * (rows_per_token if len(shape) == 1 else 1)
            outputs[name] = guarded([n if n >= 0 else many for n in shape], DTYPES[dtype])
        memory = [one.tensor for one in outputs.values()]
        self.library.run(variant, threads, packed, workspace.tensor, *given, *memory)
        assert all(one.intact for one in (workspace, *outputs.values())), "something was written beside a tensor"
        return {name: one.tensor for name, one in outputs.items()}


def aligned(size: int, align: int = 64) -> torch.Tensor:
    """Uninitialised u8 memory of this size at an aligned address; filled with a pattern that is NaN as a float."""
    whole = torch.full((size + align,), 0xFF, dtype=torch.uint8)
    begin = -whole.data_ptr() % align
    return whole[begin : begin + size]


def exact(tensor: torch.Tensor) -> np.ndarray:
    """As float64 or int64."""
    return tensor.to(torch.float64 if tensor.is_floating_point() else torch.int64).numpy()
