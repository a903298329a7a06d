"""Launching a layer's kernels: where the workspace's areas lie, and what each kernel is launched with."""

from __future__ import annotations

from collections.abc import Sequence

from moec.backends.cpu.builder import Builder, Function
from moec.backends.cpu.values import Pointer, Value
from moec.backends.cuda import driver as drivers
from moec.backends.cuda.binding import Bound
from moec.backends.cuda.driver import Driver
from moec.backends.cuda.kernel import (
    Argument,
    BufferPointer,
    DeviceGrid,
    FixedGrid,
    Kernel,
    TensorMap,
    TensorPointer,
    TokenGrid,
)
from moec.backends.cuda.program import Area, Given, Place, Program, Weight
from moec.backends.cuda.status import Status

ALIGN = 256
"""Of the workspace and of each of its areas, in bytes."""


def layout(program: Program) -> tuple[Area, ...]:
    """The areas in the order in which they lie in the workspace: those that are filled with zeros first."""
    return tuple(sorted(program.areas, key=lambda area: not area.zeroed))


def size_function(b: Builder, program: Program, number: int) -> Function:
    """`i64 cuda_ENTRY_workspace_N(i64 tokens)`: bytes of the workspace."""
    function = b.declare(f"cuda_{program.layer.entry}_workspace_{number}", [b.i64], b.i64)
    with b.define(function) as (tokens,):
        b.return_(_bytes(b, layout(program), tokens))
    return function


def _bytes(b: Builder, areas: Sequence[Area], tokens: Value) -> Value:
    total = b.index(0)
    for area in areas:
        total = total + ((tokens * area.per_token + (area.fixed + ALIGN - 1)) & -ALIGN)
    return total


def launch_function(b: Builder, bound: Bound, number: int) -> Function:
    """`i32 cuda_ENTRY_launch_N(ptr state, ptr stream, ptr bound, ptr workspace, i64 tokens, ptr given)`: a status.

    `given` lists the addresses of the call's tensors; that of a statistic may be null.
    """
    name = f"cuda_{bound.program.layer.entry}_launch_{number}"
    function = b.declare(name, [b.ptr, b.ptr, b.ptr, b.ptr, b.i64, b.ptr], b.i32)
    with b.define(function) as (state, stream, weights, workspace, tokens, given):
        _Launching(b, bound, Driver(b, state), stream, weights, workspace, tokens, given).emit()
    return function


class _Launching:
    def __init__(
        self,
        b: Builder,
        bound: Bound,
        driver: Driver,
        stream: Pointer,
        weights: Pointer,
        workspace: Pointer,
        tokens: Value,
        given: Pointer,
    ) -> None:
        self.b, self.bound, self.driver, self.stream = b, bound, driver, stream
        self.weights, self.workspace, self.tokens, self.given = weights, workspace, tokens, given
        self.program: Program = bound.program
        self.areas = self._addresses()

    def emit(self) -> None:
        b, status = self.b, Status(self.b)
        zeroed = [area for area in self.areas if area.zeroed]
        if zeroed:
            count = _bytes(b, zeroed, self.tokens)
            nothing = b.constant(b.i8, 0)
            status.then(
                lambda: self.driver.check(
                    self.driver.call("cuMemsetD8Async", self.workspace, nothing, count, self.stream),
                    "clearing the workspace",
                )
            )
        for number, kernel in enumerate(self.program.kernels):

            def run(number: int = number, kernel: Kernel = kernel) -> Value:
                launched = self._wanted(kernel)
                zero = b.constant(b.i32, 0)
                return b.choose(launched, [b.i32], lambda: [self._launch(number, kernel)], lambda: [zero])[0]

            status.then(run)
        b.return_(status.value)

    def _wanted(self, kernel: Kernel) -> Value:
        """Whether a kernel is launched for so many tokens."""
        first, end = kernel.tokens
        if isinstance(kernel.grid, TokenGrid):
            first = max(first, 1)
        wanted = self.tokens >= first
        return wanted if end is None else wanted & (self.tokens < end)

    def _launch(self, number: int, kernel: Kernel) -> Value:
        b = self.b

        def i32(value: int) -> Value:
            return b.constant(b.i32, value)

        count = len(kernel.arguments)
        values, addresses = b.scratch(8 * max(1, count), 8), b.scratch(8 * max(1, count), 8)
        for place, argument in enumerate(kernel.arguments):
            value = values + 8 * place
            if isinstance(argument, TensorMap):
                (addresses + 8 * place).store(self.weights + self.bound.map_offset(argument))
            else:
                value.store(self._value(argument))
                (addresses + 8 * place).store(value)
        launched = self.driver.call(
            "cuLaunchKernel",
            self.driver.word(drivers.FIRST_KERNEL + self.program.first_kernel + number).load_pointer(),
            self._blocks(kernel),
            i32(1),
            i32(1),
            i32(kernel.threads),
            i32(1),
            i32(1),
            i32(kernel.shared_bytes),
            self.stream,
            addresses,
            b.null,
        )
        return self.driver.check(launched, f"launching the kernel `{kernel.name}`")

    def _blocks(self, kernel: Kernel) -> Value:
        b = self.b
        match kernel.grid:
            case FixedGrid(blocks):
                return b.constant(b.i32, blocks)
            case TokenGrid(tokens):
                return b.convert((self.tokens + (tokens - 1)) // tokens, b.i32)
            case DeviceGrid(per_multiprocessor):
                return b.convert(self.driver.word(drivers.SM_COUNT).load(b.i64) * per_multiprocessor, b.i32)

    def _value(self, argument: Argument) -> Value:
        """What a parameter of a kernel that is no tensor map holds."""
        if isinstance(argument, BufferPointer):
            return self._address(self.program.places[argument.buffer])
        if isinstance(argument, TensorPointer):
            return self._address(self.program.places[argument.value])
        return self.b.convert(self.tokens, self.b.i32)

    def _address(self, place: Place) -> Value:
        b = self.b
        if isinstance(place, Weight):
            return (self.weights + self.bound.stack_offset(place)).load_pointer() + place.before
        if isinstance(place, Given):
            return (self.given + 8 * place.number).load_pointer()
        mine = self.areas[place]
        if place.statistic is None:
            return mine
        counted = (self.given + 8 * place.statistic).load_pointer()
        return b.select(b.is_null(counted), mine, counted)

    def _addresses(self) -> dict[Area, Pointer]:
        found: dict[Area, Pointer] = {}
        place = self.workspace
        for area in layout(self.program):
            found[area] = place
            place = place + _bytes(self.b, [area], self.tokens)
        return found
