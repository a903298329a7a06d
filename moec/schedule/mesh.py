"""A mesh: devices in a grid, each one a rank, and the links along its axes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from math import prod

MOST_AXES = 8
LARGEST_AXIS = 2**16
MOST_RANKS = 2**20


@dataclass(frozen=True)
class Axis:
    """One axis of a mesh.

    size       how many positions it has
    bandwidth  bytes/s, each way, of the link between one position and the others; the devices inside of a position
               (those that differ only along axes further in) share it.  None: unknown
    latency    seconds a message takes beside its bytes.  None: unknown
    """

    name: str
    size: int
    bandwidth: float | None = None
    latency: float | None = None


@dataclass(frozen=True)
class Mesh:
    """Devices in a grid.  Ranks count row by row: the last axis varies fastest.

    axes    outermost first
    memory  bytes of one device for weights and buffers.  None: unknown
    flops   floating-point operations a second that one device's kernels reach.  None: unknown
    """

    name: str
    axes: tuple[Axis, ...]
    memory: int | None = None
    flops: float | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the axes, outermost first."""
        return tuple(axis.name for axis in self.axes)

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes, outermost first."""
        return tuple(axis.size for axis in self.axes)

    @property
    def ranks(self) -> int:
        """The number of devices."""
        return prod(self.shape)

    @cached_property
    def _strides(self) -> tuple[int, ...]:
        return tuple(prod(self.shape[i + 1 :]) for i in range(len(self.axes)))

    def axis(self, name: str) -> Axis:
        """The axis of this name.  Raises KeyError."""
        for axis in self.axes:
            if axis.name == name:
                return axis
        raise KeyError(name)

    def coordinates(self, rank: int) -> tuple[int, ...]:
        """The position of a rank along every axis.  Raises IndexError for a rank that is none."""
        if not 0 <= rank < self.ranks:
            raise IndexError(f"rank {rank} of a mesh of {self.ranks}")
        return tuple(rank // stride % size for stride, size in zip(self._strides, self.shape, strict=True))

    def rank(self, coordinates: Iterable[int]) -> int:
        """The rank at a position along every axis."""
        return sum(c * stride for c, stride in zip(coordinates, self._strides, strict=True))

    def ordered(self, axes: Iterable[str]) -> tuple[str, ...]:
        """These axes, outermost first.  Raises KeyError for one that the mesh does not have."""
        wanted = {self.axis(name).name for name in axes}
        return tuple(name for name in self.names if name in wanted)

    def size(self, axes: Iterable[str]) -> int:
        """How many positions there are along these axes together."""
        return prod(self.axis(name).size for name in self.ordered(axes))

    def position(self, rank: int, axes: Iterable[str]) -> int:
        """The number of a rank's position along these axes, row by row; their order does not matter."""
        number = 0
        chosen = self.ordered(axes)
        for name, size, c in zip(self.names, self.shape, self.coordinates(rank), strict=True):
            if name in chosen:
                number = number * size + c
        return number

    def group(self, rank: int, axes: Iterable[str]) -> tuple[int, ...]:
        """The ranks that differ from this one along these axes at most, ascending: entry i is at position i of them."""
        chosen = self.ordered(axes)
        members = [0]
        for name, stride, size, c in zip(self.names, self._strides, self.shape, self.coordinates(rank), strict=True):
            along = range(size) if name in chosen else (c,)
            members = [member + stride * i for member in members for i in along]
        return tuple(members)

    def groups(self, axes: Iterable[str]) -> tuple[tuple[int, ...], ...]:
        """All groups of these axes, in the order of their first ranks; together they are all ranks."""
        chosen = self.ordered(axes)
        return tuple(self.group(r, chosen) for r in range(self.ranks) if self.position(r, chosen) == 0)
