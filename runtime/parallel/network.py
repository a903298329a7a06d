"""The process groups of a mesh: one for each set of axes that something travels over, all collectives one at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from math import prod
from typing import Protocol

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

from moec.errors import MoecError
from moec.runtime.parallel.failures import watch
from moec.runtime.parallel.streams import Thread
from moec.schedule.mesh import Mesh


class Waiting(Protocol):
    """How to wait for others without waiting for ever."""

    def wait(self, work: dist.Work, what: str, peers: Sequence[int]) -> None:
        """Until `work` of the ranks `peers` is done; RankError if it fails or takes too long."""
        ...

    def check(self) -> None:
        """RankError if some rank is known to have failed."""
        ...

    def call(self, what: str) -> AbstractContextManager[None]:
        """Around what all ranks do in the same order; an error in it stops the others, too."""
        ...


@dataclass(frozen=True)
class Group:
    """The ranks that differ from this one along some axes only.

    ranks     their numbers in the default process group, in the order of their positions
    position  this rank's
    process   None where there is nobody else
    """

    ranks: tuple[int, ...]
    position: int
    process: dist.ProcessGroup | None
    waiting: Waiting

    @property
    def size(self) -> int:
        return len(self.ranks)

    def all_to_all(
        self, out: torch.Tensor, given: torch.Tensor, out_rows: list[int], given_rows: list[int], what: str
    ) -> None:
        """Send `given_rows[i]` rows of `given` to position i, and receive `out_rows[i]` rows of `out` from there.

        Both are contiguous `[rows, columns]`, the blocks of positions one behind the other.
        """
        if self.process is None:
            out.copy_(given)
            return
        # As bytes: Gloo has no bf16.
        # The group's own method, since what torch does around it takes as long as a small exchange.
        work = self.process.alltoall_base(
            out.view(torch.uint8), given.view(torch.uint8), out_rows, given_rows, dist.AllToAllOptions()
        )
        self.waiting.wait(work, what, self.ranks)

    def gather(self, out: torch.Tensor, given: torch.Tensor, out_rows: list[int], what: str) -> None:
        """Give `given` to everybody, and receive `out_rows[i]` rows of `out` from position i."""
        if self.process is None:
            out.copy_(given)
            return
        self.all_to_all(out, given.repeat(self.size, 1), out_rows, [len(given)] * self.size, what)


class Network:
    """A DeviceMesh whose axes are those of a layout's mesh.

    rank   this process's number in the mesh, row by row
    world  the default process group that it was made in
    """

    def __init__(self, mesh: Mesh, devices: DeviceMesh, waiting: Waiting, timeout: float) -> None:
        """timeout: seconds.  Raises MoecError where the axes differ."""
        if devices.mesh_dim_names != mesh.names or tuple(devices.shape) != mesh.shape:
            raise MoecError(
                f"the layer is compiled for the mesh {mesh.name} with axes {_axes(mesh.names, mesh.shape)}; the device "
                f"mesh has {_axes(devices.mesh_dim_names or (), tuple(devices.shape))}. Make it with "
                f'`init_device_mesh("cpu", {mesh.shape}, mesh_dim_names={mesh.names})`'
            )
        self.mesh = mesh
        self.world = dist.distributed_c10d._get_default_group()
        self.numbers = tuple(int(number) for number in devices.mesh.flatten())
        self.rank = self.numbers.index(dist.get_rank())
        self.waiting = waiting
        self._timeout = timedelta(seconds=timeout)
        self._groups: dict[tuple[str, ...], Group] = {}
        self._threads: dict[str, Thread] = {}
        self._calling = threading.Lock()

    def group(self, axes: tuple[str, ...]) -> Group:
        """The group of these axes, made when it is first asked for: by all ranks in the same order."""
        found = self._groups.get(axes)
        if found is None:
            members = self.mesh.group(self.rank, axes)
            numbers = tuple(self.numbers[member] for member in members)
            process = None
            if len(members) > 1:
                process = dist.new_group(list(numbers), timeout=self._timeout, use_local_synchronization=True)
            found = Group(numbers, members.index(self.rank), process, self.waiting)
            self._groups[axes] = found
        return found

    @contextmanager
    def call(self, what: str) -> Iterator[None]:
        """Around a call that all ranks make, in the same order; one at a time in this process."""
        with self._calling, self.waiting.call(what):
            yield

    def threads(self, streams: Sequence[str]) -> dict[str, Thread]:
        """A thread for each stream; layers on one mesh share them."""
        for name in streams:
            if name not in self._threads:
                self._threads[name] = Thread(name)
        return {name: self._threads[name] for name in streams}


def network(mesh: Mesh, devices: DeviceMesh, timeout: float) -> Network:
    """The network of a device mesh, shared by all layers on it that ask for the same mesh and timeout (in seconds).

    All ranks of the mesh must ask, in the same order as for others.  Raises MoecError where the axes differ.
    """
    world = dist.distributed_c10d._get_default_group()
    numbers = tuple(int(number) for number in devices.mesh.flatten())
    key = (mesh.names, mesh.shape, numbers, timeout)
    found = _NETWORKS.get(key)
    if found is None or found.world is not world:
        found = _NETWORKS[key] = Network(mesh, devices, watch(numbers, timeout), timeout)
    return found


_NETWORKS: dict[tuple[tuple[str, ...], tuple[int, ...], tuple[int, ...], float], Network] = {}


def matrix(tensor: torch.Tensor) -> torch.Tensor:
    """The same contiguous memory as `[rows, columns]`."""
    return tensor.view(len(tensor), prod(tensor.shape[1:]))


def _axes(names: Sequence[str], shape: Sequence[int]) -> str:
    return ", ".join(f"{name}[{size}]" for name, size in zip(names, shape, strict=False)) or "no names"
