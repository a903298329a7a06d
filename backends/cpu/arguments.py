"""Reads and checks the arguments of tvm-ffi functions: integers and tensors in the layouts of `tvm/ffi/c_api.h`.

A check that fails raises one of tvm-ffi's errors, whose kind is the name of an exception of `moec.errors`, and gives -1
as status; a status of 0 means that all is well so far.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from torch_mlir import ir

from moec.backends.cpu.builder import Builder, Function
from moec.backends.cpu.values import Pointer, Value

ANY_BYTES = 16  # TVMFFIAny: i32 type index, padding, 8 bytes of value
_NONE, _INT, _BOOL, _DLTENSOR, _TENSOR = 0, 1, 2, 7, 70
_OBJECT_HEADER = 24  # a Tensor object is a TVMFFIObject with a DLTensor behind it
# DLTensor
_DATA, _DEVICE, _NDIM, _DTYPE, _SHAPE, _STRIDES, _OFFSET = 0, 8, 16, 20, 24, 32, 40
_CPU, _CUDA = 1, 2

DTYPES = {
    "f32": (2, 32), "bf16": (4, 16), "f16": (2, 16), "f64": (2, 64),
    "i8": (0, 8), "f8E4M3FN": (10, 8), "i32": (0, 32), "i64": (0, 64), "u8": (1, 8), "i1": (6, 8),
}  # fmt: skip
"""Element type -> DLPack's (code, bits)."""

TOKENS = -1
"""As a dimension: any number, the same T wherever it stands."""

# What a check finds, by its number: (kind, what follows "NAME must be ... ").
_FAULTS = (
    ("TypeError", "; it is no tensor"),
    ("DtypeError", "; its dtype differs"),
    ("ShapeError", "; its number of dimensions differs"),
    ("ShapeError", "; its shape differs"),
    ("DeviceError", "; it is on another device"),
    ("LayoutError", "; it is not contiguous"),
    ("LayoutError", "; its address is not aligned"),
)


@dataclass(frozen=True)
class Expected:
    """A tensor argument: what messages call it, its element type, its dimensions.

    A dimension TOKENS is T * `per_token`; messages call it `length`.  None may stand for one that is `optional`.
    """

    name: str
    dtype: str
    dims: tuple[int, ...]
    length: str = "T"
    per_token: int = 1
    align: int = 1
    optional: bool = False
    where: str = "on the CPU"

    @property
    def description(self) -> str:
        dims = ", ".join(self.length if n == TOKENS else str(n) for n in self.dims)
        aligned = f", aligned to {self.align} bytes" if self.align > 8 else ""
        other = ", or None" if self.optional else ""
        return f"{self.name} must be a contiguous {self.dtype} tensor of shape [{dims}] {self.where}{aligned}{other}"


class Arguments:
    """The arguments of the function that is being defined; `status` is 0 until a check fails, then -1."""

    def __init__(self, b: Builder, arguments: Pointer, count: Value, result: Pointer) -> None:
        self.b = b
        self.result = result
        self.arguments = arguments
        self.count = count
        self.status = b.constant(b.i32, 0)

    def then(self, check: Callable[[], Value]) -> None:
        """Runs a check, which gives a status, if all was well before."""
        b = self.b
        status = self.status
        self.status = b.choose(status.equals(0), [b.i32], lambda: [check()], lambda: [status])[0]

    def fail(self, kind: str, text: str) -> Value:
        """Raises an error; its status."""
        return fail(self.b, kind, self.b.string(text))

    def require(self, condition: Callable[[], Value], kind: str, text: str) -> None:
        b = self.b

        def check() -> Value:
            zero = b.constant(b.i32, 0)
            return b.choose(condition(), [b.i32], lambda: [zero], lambda: [self.fail(kind, text)])[0]

        self.then(check)

    def expect_count(self, wanted: int, usage: str) -> None:
        self.require(lambda: self.count.equals(wanted), "TypeError", f"wrong number of arguments; usage: {usage}")

    def integer(self, number: int, name: str, below: int | None = None) -> Value:
        """A non-negative integer argument, below a limit if there is one; 0 if a check has failed."""
        b = self.b
        slot = self.arguments + number * ANY_BYTES
        limit = 2**31 if below is None else below

        def sound() -> Value:
            kind = slot.load(b.i32)
            fits = (slot + 8).load(b.i64).unsigned_below(limit)
            return (kind.equals(_INT) | kind.equals(_BOOL)) & fits

        expectation = "a non-negative integer" if below is None else f"an integer from 0 to {below - 1}"
        self.require(sound, "RangeError", f"{name} must be {expectation}")
        return self._guarded(lambda: [(slot + 8).load(b.i64)], [b.i64], lambda: [b.index(0)])[0]

    def word(self, number: int, name: str) -> Value:
        """An integer argument of 64 bits, such as an address; 0 if a check has failed."""
        slot = self.arguments + number * ANY_BYTES
        self.require(lambda: slot.load(self.b.i32).equals(_INT), "TypeError", f"{name} must be an integer")
        return self._guarded(lambda: [(slot + 8).load(self.b.i64)], [self.b.i64], lambda: [self.b.index(0)])[0]

    def tensor(self, number: int, expected: Expected, tokens: Value | None = None, gpu: Value | None = None) -> Pointer:
        """The DLTensor of a tensor argument; null if it is None or a check has failed.

        `tokens` is T, any number if None.  `gpu` is the number of the CUDA device that it must be on; None: on the CPU.
        """
        b = self.b
        slot = self.arguments + number * ANY_BYTES
        found = self._guarded(lambda: [_tensor_of(b, slot)], [b.ptr], lambda: [b.null])[0]
        tensor = Pointer(found.raw)
        any_ = b.index(-1)

        def check() -> Value:
            dims = self._dims(expected, tokens, any_)
            code, bits = DTYPES[expected.dtype]
            dtype = b.constant(b.i32, code | bits << 8 | 1 << 16)
            rank, align = b.constant(b.i32, len(expected.dims)), b.index(max(expected.align, bits // 8))
            device = b.index(-1) if gpu is None else gpu
            text = b.string(expected.description)
            return b.result(_checked_function(b), tensor, dtype, rank, dims, align, device, text)

        if expected.optional:
            given = self._guarded(lambda: [slot.load(b.i32).differs(_NONE)], [b.i1], lambda: [b.constant(b.i1, 0)])[0]
            self.then(lambda: b.choose(given, [b.i32], lambda: [check()], lambda: [b.constant(b.i32, 0)])[0])
        else:
            self.then(check)
        return tensor

    def _guarded(
        self, when_sound: Callable[[], list[Value]], types: Sequence[ir.Type], otherwise: Callable[[], list[Value]]
    ) -> list[Value]:
        return self.b.choose(self.status.equals(0), types, when_sound, otherwise)

    def _dims(self, expected: Expected, tokens: Value | None, any_: Value) -> Pointer:
        b = self.b
        dims = b.scratch(8 * max(1, len(expected.dims)), 8)
        for n, dim in enumerate(expected.dims):
            length = b.index(dim)
            if dim == TOKENS:
                length = any_ if tokens is None else tokens * expected.per_token
            (dims + 8 * n).store(length)
        return dims

    def address(self, tensor: Pointer) -> Pointer:
        """The address of a checked tensor's first element."""
        b = self.b
        base, offset = (tensor + _DATA).load_pointer(), (tensor + _OFFSET).load(b.i64)
        return base + offset

    def optional_address(self, tensor: Pointer) -> Value:
        """The same for a tensor that need not be there: null then."""
        b = self.b
        return b.choose(b.is_null(tensor), [b.ptr], lambda: [b.null], lambda: [self.address(tensor)])[0]

    def length(self, tensor: Pointer) -> Value:
        """The leading dimension of a checked tensor; 0 if a check has failed."""
        b = self.b
        return self._guarded(lambda: [(tensor + _SHAPE).load_pointer().load(b.i64)], [b.i64], lambda: [b.index(0)])[0]


def _tensor_of(b: Builder, slot: Pointer) -> Value:
    """The DLTensor of an argument in either form, null if it is no tensor."""
    kind, address = slot.load(b.i32), (slot + 8).load_pointer()
    behind = b.select(kind.equals(_TENSOR), address + _OBJECT_HEADER, b.null)
    return b.select(kind.equals(_DLTENSOR), address, behind)


def _checked_function(b: Builder) -> Function:
    """`i32 checked(ptr tensor, i32 dtype, i32 rank, ptr dims, i64 align, i64 gpu, ptr description)`: a status.

    A dimension of -1 may be anything; a `gpu` of -1 is the CPU.
    """
    known = b.known("checked")
    if known is not None:
        return known
    function = b.declare("checked", [b.ptr, b.i32, b.i32, b.ptr, b.i64, b.i64, b.ptr], b.i32)
    with b.define(function) as (tensor, dtype, rank, dims, align, gpu, description):
        checks: list[Callable[[], Value]] = [
            lambda: ~b.is_null(tensor),
            lambda: (tensor + _DTYPE).load(b.i32).equals(dtype),
            lambda: (tensor + _NDIM).load(b.i32).equals(rank),
            lambda: _same_shape(b, tensor, b.convert(rank, b.i64), dims),
            lambda: _on_device(b, tensor, gpu),
            lambda: _contiguous(b, tensor, b.convert(rank, b.i64)),
            lambda: _aligned(b, tensor, align),
        ]
        status = b.constant(b.i32, 0)
        for check, (kind, text) in zip(checks, _FAULTS, strict=True):
            status = _unless_failed(b, status, check, kind, description, text)
        b.return_(status)
    return function


def _unless_failed(
    b: Builder, status: Value, check: Callable[[], Value], kind: str, description: Pointer, text: str
) -> Value:
    """A check that runs if those before it found nothing."""

    def run() -> list[Value]:
        zero = b.constant(b.i32, 0)
        return b.choose(check(), [b.i32], lambda: [zero], lambda: [fail(b, kind, description, b.string(text))])

    return b.choose(status.equals(0), [b.i32], run, lambda: [status])[0]


def fail(b: Builder, kind: str, *parts: Pointer) -> Value:
    """Raises an error whose message the parts make up; its status."""
    raise_ = b.declare("TVMFFIErrorSetRaisedFromCStrParts", [b.ptr, b.ptr, b.i32], linkage="external")
    list_ = b.scratch(8 * len(parts), 8)
    for n, part in enumerate(parts):
        (list_ + 8 * n).store(part)
    b.call(raise_, b.string(kind), list_, b.constant(b.i32, len(parts)))
    return b.constant(b.i32, -1)


def _on_device(b: Builder, tensor: Pointer, gpu: Value) -> Value:
    """DLPack's device: its type, then its number, which says nothing of the CPU."""
    type_, number = (tensor + _DEVICE).load(b.i32), (tensor + _DEVICE + 4).load(b.i32)
    on_gpu = type_.equals(_CUDA) & b.convert(number, b.i64).equals(gpu)
    return b.select(gpu < 0, type_.equals(_CPU), on_gpu)


def _same_shape(b: Builder, tensor: Pointer, rank: Value, dims: Pointer) -> Value:
    shape = (tensor + _SHAPE).load_pointer()
    with b.for_(0, rank, carry=[b.constant(b.i1, 1)]) as loop:
        wanted, have = dims.at(loop.index, 8).load(b.i64), shape.at(loop.index, 8).load(b.i64)
        loop.carry(loop.value & (wanted.equals(-1) | have.equals(wanted)))
    return loop.result


def _contiguous(b: Builder, tensor: Pointer, rank: Value) -> Value:
    """Row-major without gaps, where a dimension of 1 may have any stride and an empty tensor any strides."""
    shape, strides = (tensor + _SHAPE).load_pointer(), (tensor + _STRIDES).load_pointer()

    def compare() -> list[Value]:
        with b.for_(0, rank, carry=[b.constant(b.i1, 1), b.index(1)]) as loop:
            dense, step = loop.values
            axis = rank - 1 - loop.index
            size, stride = shape.at(axis, 8).load(b.i64), strides.at(axis, 8).load(b.i64)
            loop.carry(dense & (stride.equals(step) | size.equals(1)), step * size)
        dense, count = loop.results
        return [dense | count.equals(0)]

    return b.choose(b.is_null(strides), [b.i1], lambda: [b.constant(b.i1, 1)], compare)[0]


def _aligned(b: Builder, tensor: Pointer, align: Value) -> Value:
    address = b.integer(tensor.load_pointer() + (tensor + _OFFSET).load(b.i64))
    return (address & (align - 1)).equals(0)


def set_integer(b: Builder, result: Pointer, value: Value) -> None:
    """Gives an i64 back to the caller."""
    result.store(b.constant(b.i32, _INT))
    (result + 4).store(b.constant(b.i32, 0))
    (result + 8).store(value)


def set_none(b: Builder, result: Pointer) -> None:
    result.store(b.index(0))
    (result + 8).store(b.index(0))


@contextmanager
def exported(b: Builder, name: str, usage: str, count: int) -> Iterator[Arguments]:
    """The body of an exported function; returns the status of its arguments at the end."""
    function = b.declare(f"__tvm_ffi_{name}", [b.ptr, b.ptr, b.i32, b.ptr], b.i32, linkage="external")
    with b.define(function) as (_, given, given_count, result):
        arguments = Arguments(b, given, given_count, result)
        arguments.expect_count(count, f"{name}({usage})")
        set_none(b, result)
        yield arguments
        b.return_(arguments.status)
