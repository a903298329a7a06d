"""The memory of one call: what its kernels read and wrote."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from bench.cuda.steps.operations import Reference
from bench.cuda.steps.record import Area, Code, Function, Kernel
from bench.cuda.steps.scalars import NoReference, Tensor, constant
from moec.runtime.dtypes import TORCH_DTYPES

_DTYPES = {**TORCH_DTYPES, "i64": torch.int64}
_RESHAPES = ("tensor.expand_shape", "tensor.collapse_shape")


class Call:
    """A call that has ended.

    known      tensors of the call and parameters, by the numbers of their values
    workspace  u8, as the call left it
    """

    def __init__(
        self, function: Function, architecture: str, tokens: int, known: Mapping[int, Tensor], workspace: Tensor
    ) -> None:
        self.function, self.tokens, self._workspace = function, tokens, workspace
        self.code: Code = function.code[architecture]
        self.kernels: list[Kernel] = [one for one in self.code.kernels if one.launched(tokens)]
        self._known = dict(known)
        self._written = {value for kernel in self.kernels for value in kernel.values}
        self._places = self.code.places(tokens)
        self.reference = Reference(function, tokens, workspace.device, self.read)

    def read(self, value: int) -> Tensor:
        """A value where kernels found it; what only exists within a kernel is made here.  Raises NoReference."""
        if value not in self._known:
            self._known[value] = self._found(value)
        return self._known[value]

    def buffer(self, name: str, value: int) -> Tensor | None:
        """The bytes of a value's buffer; None where there is none."""
        for number, area in enumerate(self.code.areas):
            if area.buffer == name and area.value == value:
                return self._bytes(number)
        return None

    def area(self, number: int) -> tuple[Area, Tensor]:
        return self.code.areas[number], self._bytes(number)

    def shape(self, value: int) -> tuple[int, ...]:
        """Of a tensor in this call."""
        made = self.function.values[value]
        return tuple(made.rows * self.tokens if size < 0 else size for size in made.shape or ())

    def _found(self, value: int) -> Tensor:
        for number, area in enumerate(self.code.areas):
            if area.value == value and area.buffer is None and value in self._written:
                return self._typed(self._bytes(number), value)
        for reshaped in self.function.operations:  # where it is an output in another shape
            if reshaped.name in _RESHAPES and value in reshaped.operands and reshaped.results[0] in self._known:
                return self._known[reshaped.results[0]].reshape(self.shape(value))
        maker = self.function.makers.get(value)
        if maker is None:
            raise NoReference(f"value {value}")
        if maker.name in _RESHAPES:
            return self.read(maker.operands[0]).reshape(self.shape(value))
        if maker.name == "tensor.concat":
            return torch.cat([self.read(number) for number in maker.operands], dim=maker.attributes["dim"])
        if maker.name == "tensor.extract_slice" and not any(maker.attributes["static_offsets"][1:]):
            first = maker.attributes["static_offsets"][0]
            return self.read(maker.operands[0])[first : first + self.shape(value)[0]]
        if maker.name == "moe.dequantize":
            codes, scales = (self.read(number) for number in maker.operands)
            each = codes.shape[-1] // scales.shape[-1]
            return codes.float() * scales.float().repeat_interleave(each, -1)
        if maker.name == "moe.quantize_rows":
            kept, factors = (self.buffer(f"{name} of rows", value) for name in ("codes", "scales"))
            if kept is not None and factors is not None:
                shape = self.shape(value)
                return row_codes(kept, shape).float() * typed(factors, "f32")[: shape[0], None]
        if maker.name == "arith.constant":
            return constant(maker, self.function.values[value].shape, self._workspace.device)
        shape = self.shape(value)
        return self.reference.rows(maker, value, torch.arange(shape[0], device=self._workspace.device))

    def _bytes(self, number: int) -> Tensor:
        return self._workspace[self._places[number]]

    def _typed(self, raw: Tensor, value: int) -> Tensor:
        return typed(raw, self.function.values[value].dtype).reshape(self.shape(value))


def row_codes(raw: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Codes of rows [rows, columns], whose lines are whole 16 bytes."""
    rows, columns = shape
    return typed(raw, "i8").reshape(rows, -(-columns // 16) * 16)[:, :columns]


def typed(raw: Tensor, dtype: str) -> Tensor:
    """Bytes as elements."""
    return raw.view(_DTYPES[dtype])
