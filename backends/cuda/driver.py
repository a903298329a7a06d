"""Calls of the CUDA driver's functions from the code of an artifact.

The functions are found by name when a device is opened and their addresses kept in its state, so that an artifact loads
on machines without a driver.
"""

from __future__ import annotations

from torch_mlir import ir
from torch_mlir.dialects import llvm

from moec.backends.cpu.arguments import fail
from moec.backends.cpu.builder import Builder, Function
from moec.backends.cpu.values import Pointer, Value

LIBRARY = "libcuda.so.1"

FUNCTIONS = (
    "cuInit",
    "cuDeviceGet",
    "cuDeviceGetAttribute",
    "cuDevicePrimaryCtxRetain",
    "cuDevicePrimaryCtxRelease_v2",
    "cuCtxGetCurrent",
    "cuCtxPushCurrent_v2",
    "cuCtxPopCurrent_v2",
    "cuModuleLoadData",
    "cuModuleUnload",
    "cuModuleGetFunction",
    "cuFuncSetAttribute",
    "cuTensorMapEncodeTiled",
    "cuMemsetD8Async",
    "cuLaunchKernel",
    "cuGetErrorString",
)

# CUdevice_attribute, CUfunction_attribute
MULTIPROCESSORS, CAPABILITY_MAJOR, CAPABILITY_MINOR = 16, 75, 76
MAX_DYNAMIC_SHARED_BYTES = 8
OUT_OF_MEMORY = 2

# Words of the state of an opened device.
DEVICE, CONTEXT, MODULE, SM_COUNT, PROGRAM, _FIRST_FUNCTION = 0, 1, 2, 3, 4, 5
FIRST_KERNEL = _FIRST_FUNCTION + len(FUNCTIONS)


def indirect(b: Builder, address: Pointer, result: ir.Type, *arguments: Value) -> Value:
    """Calls the function at an address."""
    raw = [address.raw, *(argument.raw for argument in arguments)]
    return Value(llvm.CallOp(result, raw, [], []).operation.results[0])


class Driver:
    """The driver of an opened device, whose state lies at `state`."""

    def __init__(self, b: Builder, state: Pointer) -> None:
        self.b, self.state = b, state

    def word(self, number: int) -> Pointer:
        return self.state + 8 * number

    def call(self, name: str, *arguments: Value) -> Value:
        """The CUresult of a call; 0 is success."""
        address = self.word(_FIRST_FUNCTION + FUNCTIONS.index(name)).load_pointer()
        return indirect(self.b, address, self.b.i32, *arguments)

    def find(self, library: Pointer) -> Value:
        """Fills in the addresses of all functions; a status: an error is raised for the first that is missing."""
        b = self.b
        dlsym = b.declare("dlsym", [b.ptr, b.ptr], b.ptr, linkage="external")
        status = b.constant(b.i32, 0)
        for number, name in enumerate(FUNCTIONS):

            def look(number: int = number, name: str = name) -> list[Value]:
                found = Pointer(b.result(dlsym, library, b.string(name)).raw)
                self.word(_FIRST_FUNCTION + number).store(found)
                text = f"the NVIDIA driver of this machine is too old for this layer: it has no {name}"
                return b.choose(
                    b.is_null(found),
                    [b.i32],
                    lambda: [fail(b, "CudaError", b.string(text))],
                    lambda: [b.constant(b.i32, 0)],
                )

            status = b.choose(status.equals(0), [b.i32], look, lambda status=status: [status])[0]  # type: ignore[misc]
        return status

    def check(self, result: Value, doing: str) -> Value:
        """The status of a CUresult: where it is no success, an error is raised that says what was being done."""
        b = self.b
        zero = b.constant(b.i32, 0)
        function = _failed_function(b)
        return b.choose(
            result.equals(0),
            [b.i32],
            lambda: [zero],
            lambda: [b.result(function, self.state, result, b.string(doing))],
        )[0]


def _failed_function(b: Builder) -> Function:
    """`i32 cuda_failed(ptr state, i32 result, ptr doing)`: raises the error of a CUresult; -1."""
    known = b.known("cuda_failed")
    if known is not None:
        return known
    function = b.declare("cuda_failed", [b.ptr, b.i32, b.ptr], b.i32)
    with b.define(function) as (state, result, doing):
        text = b.scratch(8, 8)
        text.store(b.string("unknown error"))
        Driver(b, state).call("cuGetErrorString", result, text)
        said = text.load_pointer()
        with b.if_(b.is_null(said)):
            text.store(b.string("unknown error"))
        parts = (doing, b.string(": "), text.load_pointer())
        full = result.equals(OUT_OF_MEMORY)
        status = b.choose(
            full,
            [b.i32],
            lambda: [fail(b, "CudaOutOfMemory", *parts)],
            lambda: [fail(b, "CudaError", *parts)],
        )[0]
        b.return_(status)
    return function
