"""The kernels of a layer's function for one architecture, and where each of their arguments comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch_mlir import ir

from moec.backends.base import unsupported
from moec.backends.cpu.layer import Layer, Tensor
from moec.backends.cpu.parameters import RESHAPES
from moec.backends.cpu.rowcount import rows_per_token
from moec.backends.cpu.values import byte_width
from moec.backends.cuda.arch import Arch
from moec.backends.cuda.emitters import emitter
from moec.backends.cuda.kept import Kept, of_layer
from moec.backends.cuda.kernel import Buffer, BufferPointer, Kernel, Scope, TensorMap, TensorPointer
from moec.backends.cuda.stacks import Stack, is_weight, place_of

FOLDED = (
    "arith.constant",
    "tensor.empty",
    "tensor.concat",
    "tensor.extract_slice",
    *RESHAPES,
    "moe.quantize",
    "moe.dequantize",
)
"""Operations without kernels: on constants and parameters alone, or of shapes."""


@dataclass(frozen=True)
class Weight:
    """Number `stack` of the stacks of parameters, as kernels see it: a shape with E, N, K as its last dimensions.

    before  bytes of the stack that lie before it
    """

    stack: int
    before: int = 0


@dataclass(frozen=True)
class Given:
    """A tensor of the call: number `number` of the inputs and then the outputs and statistics."""

    number: int


@dataclass(frozen=True, eq=False)
class Area:
    """A piece of the workspace: `per_token * T + fixed` bytes.

    statistic  number of the tensor of the call that stands in for it where the caller gives one
    """

    name: str
    per_token: int
    fixed: int
    zeroed: bool = False
    statistic: int | None = None


Place = Weight | Given | Area


@dataclass(frozen=True)
class Program:
    """A function of a layer on one architecture.

    operations    for each kernel the number, in `layer.operations`, of the one that it was made for
    areas         of the workspace, in order
    stacks        of parameters that kernels read, in order; the same for every function and architecture
    first_kernel  the number of the first kernel among those of all functions
    """

    arch: Arch
    layer: Layer
    kernels: tuple[Kernel, ...]
    operations: tuple[int, ...]
    areas: tuple[Area, ...]
    stacks: tuple[Stack, ...]
    places: dict[ir.Value | Buffer, Place]
    first_kernel: int = 0

    @property
    def given(self) -> tuple[Tensor, ...]:
        """The tensors of a call: inputs, outputs, statistics."""
        return (*self.layer.inputs, *self.layer.outputs)

    def settled(self, stacks: Sequence[Stack], first_kernel: int) -> Program:
        """The same among others: `stacks` are those of all programs."""
        moved = {old: stacks.index(stack) for old, stack in enumerate(self.stacks)}
        places = {
            value: replace(place, stack=moved[place.stack]) if isinstance(place, Weight) else place
            for value, place in self.places.items()
        }
        return replace(self, stacks=tuple(stacks), places=places, first_kernel=first_kernel)


def program(layer: Layer, tensors: Sequence[Kept], arch: Arch) -> Program:
    """Asks the emitter of every operation.  Raises Unsupported for an operation that has none, or for its reason.

    tensors  of the layer on a device
    """
    scope = Scope(layer.entry)
    kernels: list[Kernel] = []
    operations: list[int] = []
    for number, op in enumerate(layer.operations):
        operation = op.operation
        emit = emitter(operation.name)
        if emit is not None:
            made = emit(operation, scope, arch)
            kernels += made
            operations += [number] * len(made)
        elif operation.name not in FOLDED:
            raise unsupported(
                "cuda", operation, f"there is no kernel for it on {arch.name}", "compile the layer for `cpu`"
            )
    return _Placing(layer, tensors, arch, kernels, operations).made()


class _Placing:
    def __init__(
        self,
        layer: Layer,
        tensors: Sequence[Kept],
        arch: Arch,
        kernels: Sequence[Kernel],
        operations: Sequence[int],
    ) -> None:
        self.layer, self.arch, self.kernels, self.operations = layer, arch, tuple(kernels), tuple(operations)
        self.places: dict[ir.Value | Buffer, Place] = {}
        self.areas: list[Area] = []
        self.stacks: list[Stack] = []
        self.tensors, self.numbers = tensors, of_layer(layer, tensors)

    def made(self) -> Program:
        for number, tensor in enumerate((*self.layer.inputs, *self.layer.outputs)):
            self._place_given(number, tensor)
        for kernel in self.kernels:
            for argument in kernel.arguments:
                if isinstance(argument, BufferPointer):
                    self._place_buffer(argument.buffer)
                elif isinstance(argument, TensorPointer | TensorMap):
                    self._place_value(argument.value)
        return Program(
            self.arch, self.layer, self.kernels, self.operations, tuple(self.areas), tuple(self.stacks), self.places
        )

    def _place_given(self, number: int, tensor: Tensor) -> None:
        value = tensor.value
        while True:
            if value in self.places:
                raise unsupported("cuda", self.layer.function, f"`{tensor.name}` is taken or given twice")
            self.places[value] = Given(number)
            owner = value.owner
            if isinstance(owner, ir.Block) or owner.operation.name not in RESHAPES:
                break
            value = owner.operation.operands[0]
        if number >= len(self.layer.inputs):
            _require_made(self.layer.function, value)
        if tensor.role == "statistic":
            area = Area(tensor.name, 0, _bytes(value, leading=True), statistic=number)
            self.areas.append(area)
            self.places[tensor.value] = self.places[value] = area

    def _place_buffer(self, buffer: Buffer) -> None:
        if buffer not in self.places:
            area = Area(buffer.name, buffer.per_token, buffer.fixed, buffer.zeroed)
            self.areas.append(area)
            self.places[buffer] = area

    def _place_value(self, value: ir.Value) -> None:
        if value in self.places:
            return
        if is_weight(value):
            stack, before = place_of(value, self.tensors, self.numbers)
            if stack not in self.stacks:
                self.stacks.append(stack)
            self.places[value] = Weight(self.stacks.index(stack), before)
            return
        owner = value.owner
        if not isinstance(owner, ir.Block) and owner.operation.name in RESHAPES:
            source = owner.operation.operands[0]
            self._place_value(source)
            self.places[value] = self.places[source]
            return
        _require_made(self.layer.function, value)
        self.areas.append(area_of(value))
        self.places[value] = self.areas[-1]


def _require_made(function: ir.Operation, value: ir.Value) -> None:
    """Raises Unsupported for a value that no kernel writes, such as one of tensors put together."""
    owner = value.owner
    if isinstance(owner, ir.Block):
        raise unsupported("cuda", function, "an argument is returned as it is")
    if emitter(owner.operation.name) is None:
        raise unsupported("cuda", owner.operation, "its result would have to be in memory as it is")


def area_of(value: ir.Value) -> Area:
    """Room in the workspace for a tensor between two kernels."""
    type_ = ir.RankedTensorType(value.type)
    if type_.rank and type_.is_dynamic_dim(0):
        return Area("rows", rows(value) * _bytes(value, leading=False), 0)
    return Area("tensor", 0, _bytes(value, leading=True))


def rows(value: ir.Value) -> int:
    """The most rows that a tensor has for each token."""
    owner = value.owner
    if not isinstance(owner, ir.Block) and owner.operation.name == "moe.plan":
        return int(ir.RankedTensorType(owner.operation.operands[0].type).get_dim_size(1))
    return rows_per_token(value)


def _bytes(value: ir.Value, leading: bool) -> int:
    """Bytes of a static tensor, or of a row of it."""
    type_ = ir.RankedTensorType(value.type)
    count = byte_width(type_.element_type)
    for axis in range(0 if leading else 1, type_.rank):
        count *= int(type_.get_dim_size(axis))
    return count
