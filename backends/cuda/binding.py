"""Binding weights: their addresses and tensor maps, in the form in which launches hand them on.

The bound weights of a layer are one block of memory on the CPU: a word for the address of each stack of parameters, and
128 bytes for each tensor map, at a multiple of 128.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch_mlir import ir

from moec.artifact.cuda import BOUND_ALIGN
from moec.backends.cpu.builder import Builder, Function
from moec.backends.cpu.frame import align_up
from moec.backends.cpu.values import Pointer, Value, byte_width
from moec.backends.cuda.driver import Driver
from moec.backends.cuda.kernel import TensorMap
from moec.backends.cuda.program import Program, Weight
from moec.backends.cuda.status import Status

MAP_BYTES = 128

# CUtensorMapDataType, CUtensorMapSwizzle
DATA_TYPES = {"i8": 0, "i32": 3, "f16": 6, "f32": 7, "bf16": 9}
SWIZZLES = {0: 0, 32: 1, 64: 2, 128: 3}
L2_128_BYTES = 2  # CUtensorMapL2promotion


@dataclass(frozen=True)
class _Map:
    """What makes two tensor maps the same."""

    stack: int
    before: int
    dims: tuple[int, int, int]
    dtype: str
    box: tuple[int, int, int]
    swizzle: int


@dataclass(frozen=True)
class Bound:
    """Where a program finds its bound weights."""

    program: Program
    maps: tuple[_Map, ...]

    @classmethod
    def of(cls, program: Program) -> Bound:
        wanted = (argument for kernel in program.kernels for argument in kernel.arguments)
        maps = dict.fromkeys(_map_of(program, argument) for argument in wanted if isinstance(argument, TensorMap))
        return cls(program, tuple(maps))

    @property
    def bytes(self) -> int:
        return self._first + MAP_BYTES * len(self.maps)

    @property
    def _first(self) -> int:
        return align_up(8 * max(1, len(self.program.stacks)), BOUND_ALIGN)

    def map_offset(self, map_: TensorMap) -> int:
        """Where the bytes of a tensor map lie."""
        return self._first + MAP_BYTES * self.maps.index(_map_of(self.program, map_))

    def stack_offset(self, weight: Weight) -> int:
        """Where the address of a stack lies."""
        return 8 * weight.stack

    def bind_function(self, b: Builder, number: int) -> Function:
        """`i32 cuda_ENTRY_bind_N(ptr state, ptr bound, ptr addresses)`: fills in `bound`; addresses are of stacks."""
        function = b.declare(f"cuda_{self.program.layer.entry}_bind_{number}", [b.ptr, b.ptr, b.ptr], b.i32)
        with b.define(function) as (state, bound, addresses):
            for stack in range(len(self.program.stacks)):
                (bound + 8 * stack).store((addresses + 8 * stack).load_pointer())
            status = Status(b)
            for place, map_ in enumerate(self.maps):
                target = bound + (self._first + MAP_BYTES * place)

                def encode(map_: _Map = map_, target: Pointer = target) -> Value:
                    address = (addresses + 8 * map_.stack).load_pointer() + map_.before
                    return _encode(b, Driver(b, state), map_, target, address)

                status.then(encode)
            b.return_(status.value)
        return function


def _map_of(program: Program, argument: TensorMap) -> _Map:
    type_ = ir.RankedTensorType(argument.value.type)
    place = program.places[argument.value]
    if not isinstance(place, Weight):
        raise ValueError("only weights have tensor maps")
    experts, columns, depth = (int(type_.get_dim_size(axis)) for axis in range(3))
    return _Map(
        place.stack, place.before, (depth, columns, experts), str(type_.element_type), argument.box, argument.swizzle
    )


def _encode(b: Builder, driver: Driver, map_: _Map, target: Pointer, address: Pointer) -> Value:
    width = byte_width(ir.Type.parse(map_.dtype))
    depth, columns, _ = map_.dims
    strides = (depth * width, columns * depth * width)

    def i32(value: int) -> Value:
        return b.constant(b.i32, value)

    encoded = driver.call(
        "cuTensorMapEncodeTiled",
        target,
        i32(DATA_TYPES[map_.dtype]),
        i32(3),
        address,
        _array(b, b.i64, map_.dims),
        _array(b, b.i64, strides),
        _array(b, b.i32, map_.box),
        _array(b, b.i32, (1, 1, 1)),
        i32(0),  # no interleaving
        i32(SWIZZLES[map_.swizzle]),
        i32(L2_128_BYTES),
        i32(0),  # zeros outside of the tensor
    )
    return driver.check(encoded, "describing a weight to the CUDA driver")


def _array(b: Builder, type_: ir.Type, values: Sequence[int]) -> Pointer:
    width = byte_width(type_)
    place = b.scratch(width * len(values), 8)
    for n, value in enumerate(values):
        (place + width * n).store(b.constant(type_, value))
    return place
