"""What an emitter makes of an operation: kernels, what they are launched with, and the memory that they share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch_mlir import ir

from moec.backends.cuda.arch import Arch


@dataclass(frozen=True)
class FixedGrid:
    """So many blocks, whatever the tokens."""

    blocks: int


@dataclass(frozen=True)
class TokenGrid:
    """ceil(T / tokens) blocks; the kernel is not launched where there are no tokens."""

    tokens: int


@dataclass(frozen=True)
class DeviceGrid:
    """So many blocks for each of the device's multiprocessors: for kernels that fetch their work themselves."""

    per_multiprocessor: int


Grid = FixedGrid | TokenGrid | DeviceGrid


@dataclass(frozen=True)
class TensorPointer:
    """`TYPE*` or `const TYPE*`: the memory of a tensor of the function (input, weight, result or one between)."""

    value: ir.Value
    ctype: str


@dataclass(frozen=True, eq=False)
class Buffer:
    """Scratch memory, aligned to 256 bytes, that lives through the call; made by `Scope.buffer`.

    bytes   `per_token * T + fixed`
    zeroed  whether it is filled with zeros before the first kernel of the call
    owner   the value that it belongs to
    """

    name: str
    per_token: int
    fixed: int
    zeroed: bool
    owner: ir.Value


@dataclass(frozen=True)
class BufferPointer:
    """`TYPE*`: the memory of a buffer."""

    buffer: Buffer
    ctype: str


@dataclass(frozen=True)
class TensorMap:
    """`const __grid_constant__ CUtensorMap`: how TMA reads a weight [E, N, K], K innermost.

    box      elements of (K, N, E) that one copy brings, each at most 256
    swizzle  bytes of a swizzled line: 0, 32, 64 or 128; what is outside of the tensor reads as 0
    """

    value: ir.Value
    box: tuple[int, int, int]
    swizzle: int


@dataclass(frozen=True)
class Tokens:
    """`int`: the number of tokens T of the call, below 2**31."""


Argument = TensorPointer | BufferPointer | TensorMap | Tokens


@dataclass(frozen=True)
class Kernel:
    """A launch.  Kernels run in the order in which they were emitted, each after the one before has ended.

    name          `MOEC_KERNEL(threads, blocks) name(...)` in the source; unique, made by `Scope.name`
    source        CUDA C++ over `includes`: the kernel and what it alone needs
    includes      headers below `backends/cuda/include`, such as `moec/mma.cuh`
    threads       of a block
    shared_bytes  dynamic shared memory of a block
    arguments     in the order of the kernel's parameters
    tokens        launched only for calls with `tokens[0] <= T < tokens[1]`; None: without bound
    """

    name: str
    source: str
    includes: tuple[str, ...]
    threads: int
    shared_bytes: int
    grid: Grid
    arguments: tuple[Argument, ...]
    tokens: tuple[int, int | None] = (0, None)


@dataclass
class Scope:
    """What emitters of one function for one architecture share: names that are not taken, and buffers."""

    prefix: str
    _names: set[str] = field(default_factory=set, init=False)
    _buffers: dict[tuple[ir.Value, str], Buffer] = field(default_factory=dict, init=False)

    def name(self, wish: str) -> str:
        """A C++ identifier like `wish` that no other kernel or device function of the source has."""
        base = f"{self.prefix}_{wish}"
        found, number = base, 1
        while found in self._names:
            number += 1
            found = f"{base}_{number}"
        self._names.add(found)
        return found

    def buffer(self, owner: ir.Value, name: str, per_token: int, fixed: int, zeroed: bool = False) -> Buffer:
        """The buffer of this name that belongs to `owner` (such as the tile list of a plan's offsets); the same for
        everybody who asks.  Raises ValueError where it was asked for in another size before."""
        made = Buffer(name, per_token, fixed, zeroed, owner)
        found = self._buffers.setdefault((owner, name), made)
        if (found.per_token, found.fixed, found.zeroed) != (per_token, fixed, zeroed):
            raise ValueError(f"the buffer {name!r} is asked for as {made} and as {found}")
        return found

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """Every buffer that was asked for, in order."""
        return tuple(self._buffers.values())


Emitter = Callable[[ir.Operation, Scope, Arch], tuple[Kernel, ...]]
"""Makes the kernels of an operation.  Raises `backends.base.Unsupported` with the reason why it cannot.

An operation may be done by the kernels of another (logits by those of the route that reads them); then its own emitter
gives none.
"""
