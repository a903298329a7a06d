"""A layer's kernels for one architecture, and where each of their arguments comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch_mlir import ir

from moec.backends.base import unsupported
from moec.backends.cpu.layer import Layer, Tensor
from moec.backends.cpu.parameters import RESHAPES
from moec.backends.cpu.rowcount import rows_per_token
from moec.backends.cpu.values import byte_width
from moec.backends.cuda.arch import Arch
from moec.backends.cuda.emitters import emitter
from moec.backends.cuda.kernel import Buffer, BufferPointer, Kernel, Scope, TensorMap, TensorPointer
from moec.backends.cuda.stacks import Stack, is_weight, require_disjoint, stack_of

FOLDED = ("arith.constant", "tensor.empty", "tensor.concat", *RESHAPES)
"""Operations without kernels: on constants and parameters alone, or of shapes."""


@dataclass(frozen=True)
class Weight:
    """Number `stack` of the stacks of parameters, as kernels see it: a shape with E, N, K as its last dimensions."""

    stack: int


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
    """What one architecture runs.

    module  what `layer` is part of, kept because the values of a module end with it
    areas   of the workspace, in order
    stacks  of parameters that kernels read, in order; the same for every architecture
    """

    arch: Arch
    module: ir.Module
    layer: Layer
    kernels: tuple[Kernel, ...]
    areas: tuple[Area, ...]
    stacks: tuple[Stack, ...]
    places: dict[ir.Value | Buffer, Place]

    @property
    def given(self) -> tuple[Tensor, ...]:
        """The tensors of a call: inputs, outputs, statistics."""
        return (*self.layer.inputs, *self.layer.outputs)


def program(module: ir.Module, layer: Layer, arch: Arch) -> Program:
    """Asks the emitter of every operation.  Raises Unsupported for an operation that has none, or for its reason."""
    scope = Scope(layer.entry)
    kernels: list[Kernel] = []
    for op in layer.operations:
        operation = op.operation
        emit = emitter(operation.name)
        if emit is not None:
            kernels += emit(operation, scope, arch)
        elif operation.name not in FOLDED:
            raise unsupported("cuda", operation, f"there is no kernel for it on {arch.name}")
    return _Placing(module, layer, arch, kernels).made()


class _Placing:
    def __init__(self, module: ir.Module, layer: Layer, arch: Arch, kernels: Sequence[Kernel]) -> None:
        self.module, self.layer, self.arch, self.kernels = module, layer, arch, tuple(kernels)
        self.places: dict[ir.Value | Buffer, Place] = {}
        self.areas: list[Area] = []
        self.stacks: list[Stack] = []
        self.numbers = {tensor.value: n for n, tensor in enumerate(layer.parameters)}

    def made(self) -> Program:
        self._place_given()
        for kernel in self.kernels:
            for argument in kernel.arguments:
                if isinstance(argument, BufferPointer):
                    self._place_buffer(argument.buffer)
                elif isinstance(argument, TensorPointer | TensorMap):
                    self._place_value(argument.value)
        require_disjoint(self.stacks, self.layer.function)
        # Weights that kernels read in the same places on every architecture get the same numbers there.
        order = sorted(range(len(self.stacks)), key=lambda n: self.stacks[n])
        moved = {old: new for new, old in enumerate(order)}
        for value, place in self.places.items():
            if isinstance(place, Weight):
                self.places[value] = Weight(moved[place.stack])
        stacks = tuple(self.stacks[n] for n in order)
        return Program(self.arch, self.module, self.layer, self.kernels, tuple(self.areas), stacks, self.places)

    def _place_given(self) -> None:
        for number, tensor in enumerate((*self.layer.inputs, *self.layer.outputs)):
            if tensor.value in self.places:
                raise unsupported("cuda", self.layer.function, f"`{tensor.name}` is taken or given twice")
            self.places[tensor.value] = Given(number)
            if tensor.role == "statistic":
                area = Area(tensor.name, 0, _bytes(tensor.value, leading=True), statistic=number)
                self.areas.append(area)
                self.places[tensor.value] = area

    def _place_buffer(self, buffer: Buffer) -> None:
        if buffer not in self.places:
            area = Area(buffer.name, buffer.per_token, buffer.fixed, buffer.zeroed)
            self.areas.append(area)
            self.places[buffer] = area

    def _place_value(self, value: ir.Value) -> None:
        if value in self.places:
            return
        if is_weight(value):
            stack = stack_of(value, self.numbers)
            if stack not in self.stacks:
                self.stacks.append(stack)
            self.places[value] = Weight(self.stacks.index(stack))
            return
        owner = value.owner
        if not isinstance(owner, ir.Block) and owner.operation.name in RESHAPES:
            source = owner.operation.operands[0]
            self._place_value(source)
            self.places[value] = self.places[source]
            return
        self.areas.append(area_of(value))
        self.places[value] = self.areas[-1]


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
