"""Functions of a module on the simulator, kernel after kernel as their emitters give them, on named NumPy arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import torch
from torch_mlir import ir

from moec.backends.cpu.layer import Layer, prepare
from moec.backends.cuda.arch import ARCHITECTURES
from moec.backends.cuda.emitters import emitter
from moec.backends.cuda.kernel import (
    Argument,
    Buffer,
    BufferPointer,
    DeviceGrid,
    FixedGrid,
    Kernel,
    Scope,
    TensorMap,
    TensorPointer,
    TokenGrid,
)
from moec.backends.cuda.program import FOLDED, rows
from moec.dialect import context
from moec.oracle.interpreter import run as oracle
from tests.backends.cuda import simulator

MULTIPROCESSORS = 3
POISON = 0xA5
DTYPES = {
    "f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16, "i32": torch.int32, "i64": torch.int64,
    "i8": torch.int8,
    "f8E4M3FN": torch.float8_e4m3fn,
}  # fmt: skip

Named = Mapping[str, torch.Tensor]


def exact(tensor: torch.Tensor) -> np.ndarray:
    return tensor.to(torch.float64).numpy() if tensor.is_floating_point() else tensor.to(torch.int64).numpy()


class Function:
    """One function of a module for one architecture; the layer itself if it is not numbered.

    prefix  of the names of its kernels, for sources that hold those of several functions
    fault   planted in a header
    """

    def __init__(
        self,
        text: str,
        arch: str = "sm_80",
        function: int = 0,
        prefix: str = "run",
        fault: simulator.Fault | None = None,
    ) -> None:
        self.text, self.prefix, self.fault = text, prefix, fault
        self.context = context()
        with self.context, ir.Location.unknown():
            self.module, layers = prepare(ir.Module.parse(text))
            self.layer: Layer = layers[function]
            self.arch = ARCHITECTURES[arch]
            self.kernels = self._kernels()

    @cached_property
    def simulated(self) -> simulator.Simulated:
        return simulator.Simulated(self.source, [kernel.name for kernel in self.kernels], self.fault)

    def _kernels(self) -> list[Kernel]:
        scope, found = Scope(self.prefix), list[Kernel]()
        for op in self.layer.operations:
            emit = emitter(op.operation.name)
            if emit is not None:
                found += emit(op.operation, scope, self.arch)
            elif op.operation.name not in FOLDED:
                raise AssertionError(f"{op.operation.name} has no kernel")
        return found

    @property
    def source(self) -> str:
        includes = dict.fromkeys(header for kernel in self.kernels for header in kernel.includes)
        return "".join(f'#include "{name}"\n' for name in includes) + "\n".join(k.source for k in self.kernels)

    def __call__(self, given: Named, tokens: int, order: int = 0) -> dict[str, torch.Tensor]:
        """The results by name, on memory that holds garbage before."""
        self.simulated.order(order)
        with self.context, ir.Location.unknown():
            call = _Call(self, given, tokens)
            for kernel in self.kernels:
                most = kernel.tokens[1]
                if kernel.tokens[0] <= tokens and (most is None or tokens < most):
                    call.launch(kernel)
            return {t.name: call.tensor(t.value) for t in self.layer.outputs}

    def expected(self, given: Named) -> dict[str, np.ndarray]:
        with context(), ir.Location.unknown():
            arguments = {name: exact(tensor) for name, tensor in given.items()}
            function = self.layer.function.operation
            name = ir.StringAttr(function.attributes["sym_name"]).value if self.layer.plain else None
            return oracle(ir.Module.parse(self.text), arguments, name)


def together(texts: Mapping[str, str], arch: str = "sm_80") -> dict[str, Function]:
    """The layers of several modules by name, compiled as one source."""
    found = {name: Function(text, arch, prefix=f"p{n}") for n, (name, text) in enumerate(texts.items())}
    source = "".join(function.source for function in found.values())
    simulated = simulator.Simulated(source, [kernel.name for function in found.values() for kernel in function.kernels])
    for function in found.values():
        function.simulated = simulated
    return found


class _Call:
    def __init__(self, function: Function, given: Named, tokens: int) -> None:
        self.function, self.tokens = function, tokens
        layer = function.layer
        self.tensors = {t.value: given[t.name].contiguous() for t in (*layer.inputs, *layer.parameters)}
        self.buffers: dict[Buffer, np.ndarray] = {}

    def launch(self, kernel: Kernel) -> None:
        match kernel.grid:
            case FixedGrid(blocks):
                count = blocks
            case TokenGrid(tokens):
                count = -(-self.tokens // tokens)
            case DeviceGrid(per_multiprocessor):
                count = per_multiprocessor * MULTIPROCESSORS
        if count:
            values = [self._argument(argument) for argument in kernel.arguments]
            self.function.simulated.launch(kernel.name, count, kernel.threads, kernel.shared_bytes, *values)

    def _argument(self, argument: Argument) -> np.ndarray | simulator.TensorMap | int:
        match argument:
            case TensorPointer(value, _):
                return _bytes(self.tensor(value))
            case BufferPointer(buffer, _):
                return self.buffer(buffer)
            case TensorMap(value, box, swizzle):
                tensor = self.tensor(value)
                return simulator.TensorMap(_bytes(tensor).view(np.uint16).reshape(tensor.shape), box, swizzle)
            case _:
                return self.tokens

    def buffer(self, buffer: Buffer) -> np.ndarray:
        if buffer not in self.buffers:
            size = max(1, buffer.per_token * self.tokens + buffer.fixed)
            self.buffers[buffer] = np.full(size, 0 if buffer.zeroed else POISON, np.uint8)
        return self.buffers[buffer]

    def tensor(self, value: ir.Value) -> torch.Tensor:
        if value not in self.tensors:
            self.tensors[value] = self._made(value)
        return self.tensors[value]

    def _made(self, value: ir.Value) -> torch.Tensor:
        type_ = ir.RankedTensorType(value.type)
        owner = None if isinstance(value.owner, ir.Block) else value.owner.operation
        shape = [self.tokens * rows(value) if type_.is_dynamic_dim(0) else type_.get_dim_size(0)] if type_.rank else []
        shape += [type_.get_dim_size(n) for n in range(1, type_.rank)]
        if owner is not None and owner.name in ("tensor.expand_shape", "tensor.collapse_shape"):
            return self.tensor(owner.operands[0]).reshape(shape)
        if owner is not None and owner.name == "tensor.concat":
            return torch.cat([self.tensor(operand) for operand in owner.operands])
        if owner is not None and owner.name == "tensor.extract_slice":
            first = ir.DenseI64ArrayAttr(owner.attributes["static_offsets"])[0]
            return self.tensor(owner.operands[0])[first : first + shape[0]]
        tensor = torch.empty(shape, dtype=DTYPES[str(type_.element_type)])
        _bytes(tensor)[:] = POISON
        return tensor


def _bytes(tensor: torch.Tensor) -> np.ndarray:
    """The memory of a tensor."""
    return tensor.view(-1).view(torch.uint8).numpy() if tensor.numel() else np.zeros(1, np.uint8)


def close(have: torch.Tensor, want: np.ndarray, tolerance: float = 0.0) -> None:
    np.testing.assert_allclose(exact(have), want, rtol=tolerance, atol=tolerance, equal_nan=True)


def orders() -> Sequence[int]:
    """Orders in which the simulator runs threads: ascending, descending, at random."""
    return (0, 1, 7)
