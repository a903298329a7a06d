"""The process groups of a mesh: one for each set of axes that something travels over, all collectives one at a time."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from math import prod
from typing import Any, Protocol
from weakref import WeakValueDictionary

import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d
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
    process   a ProcessGroupGloo, of whose methods torch's types know few; None where there is nobody else
    down      another one of the same ranks, for rows to lower positions
    """

    ranks: tuple[int, ...]
    position: int
    process: Any
    down: Any
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
        work = _all_to_all(self.process, out.view(torch.uint8), given.view(torch.uint8), out_rows, given_rows)
        self.waiting.wait(work, what, self.ranks)

    def exchange(
        self, out: torch.Tensor, given: torch.Tensor, out_rows: list[int], given_rows: list[int], what: str
    ) -> None:
        """`all_to_all` of much: both directions of a link are used at once.

        Gloo asks for a message when it is to be received, over the connection that what is sent to the same rank goes
        over, and behind it: of two ranks that begin at different times, one sends when the other has.  So rows go up
        over one process group and down over another.
        """
        if self.process is None or self.down is None:
            self.all_to_all(out, given, out_rows, given_rows, what)
            return
        me, above = self.position, self.position + 1
        to, of = out.view(torch.uint8), given.view(torch.uint8)
        below_out, below_given = sum(out_rows[:me]), sum(given_rows[:me])
        above_out, above_given = below_out + out_rows[me], below_given + given_rows[me]
        none = [0] * self.size
        up = _all_to_all(
            self.process,
            to[:below_out],
            of[above_given:],
            [*out_rows[:me], *none[me:]],
            [*none[:above], *given_rows[above:]],
        )
        down = _all_to_all(
            self.down,
            to[above_out:],
            of[:below_given],
            [*none[:above], *out_rows[above:]],
            [*given_rows[:me], *none[me:]],
        )
        to[below_out:above_out].copy_(of[below_given:above_given])
        self.waiting.wait(up, what, self.ranks)
        self.waiting.wait(down, what, self.ranks)

    def gather(self, out: torch.Tensor, given: torch.Tensor, out_rows: list[int], what: str) -> None:
        """Give `given` to everybody, and receive `out_rows[i]` rows of `out` from position i."""
        if self.process is None:
            out.copy_(given)
            return
        self.all_to_all(out, given.repeat(self.size, 1), out_rows, [len(given)] * self.size, what)


class Network:
    """The processes of a mesh.

    rank     this process's number in the mesh, row by row
    numbers  those of all processes in the default process group, in the order of the mesh
    world    the default process group that it was made in
    """

    def __init__(self, mesh: Mesh, numbers: Sequence[int], waiting: Waiting, timeout: float) -> None:
        """timeout: seconds."""
        self.mesh = mesh
        self.world = distributed_c10d._get_default_group()
        self.numbers = tuple(numbers)
        self.rank = self.numbers.index(dist.get_rank())
        self.waiting = waiting
        self._timeout = timedelta(seconds=timeout)
        # Groups have names of their own: torch's count the groups that a rank has, which may be others on each rank of
        # an elastic mesh.  A connection of their own, as making one waits for others.
        store: Any = distributed_c10d._get_default_store()
        self._store = store.clone()
        shape = "x".join(map(str, mesh.shape))
        self._name = f"moec/{self.world.group_name}/{shape}.{'.'.join(map(str, numbers))}"
        _COUNTS[self._name] += 1
        self._name += f"/{_COUNTS[self._name]}"
        self._groups: dict[tuple[str, ...], Group] = {}
        self._threads: WeakValueDictionary[str, Thread] = WeakValueDictionary()
        self._calling = threading.Lock()

    def group(self, axes: tuple[str, ...]) -> Group:
        """The group of these axes, made when it is first asked for: by all ranks in the same order."""
        found = self._groups.get(axes)
        if found is None:
            members = self.mesh.group(self.rank, axes)
            numbers = tuple(self.numbers[member] for member in members)
            process, down = None, None
            if len(members) > 1:
                process, down = (self._process(axes, members, which) for which in ("up", "down"))
            found = Group(numbers, members.index(self.rank), process, down, self.waiting)
            self._groups[axes] = found
        return found

    def _process(self, axes: tuple[str, ...], members: Sequence[int], which: str) -> Any:
        """A process group of these ranks of the mesh, with connections of its own."""
        numbers = (str(self.numbers[member]) for member in members)
        store = distributed_c10d.PrefixStore(".".join((self._name, *axes, *numbers, which)), self._store)
        return dist.ProcessGroupGloo(store, members.index(self.rank), len(members), self._timeout)

    @contextmanager
    def call(self, what: str) -> Iterator[None]:
        """Around a call that all ranks make, in the same order; one at a time in this process."""
        with self._calling, self.waiting.call(what):
            yield

    def threads(self, streams: Sequence[str]) -> dict[str, Thread]:
        """A thread for each stream; layers on one mesh share them, and they end with the last that has them."""
        return {name: self._threads.setdefault(name, self._threads.get(name) or Thread(name)) for name in streams}


def _all_to_all(
    process: Any, out: torch.Tensor, given: torch.Tensor, out_rows: list[int], given_rows: list[int]
) -> dist.Work:
    """The group's own method, since what torch does around it takes as long as a small exchange."""
    work: dist.Work = process.alltoall_base(out, given, out_rows, given_rows, distributed_c10d.AllToAllOptions())
    return work


def network(mesh: Mesh, numbers: Sequence[int], timeout: float) -> Network:
    """The network of a mesh of processes, shared by all layers that ask for the same, with the same timeout (seconds).

    All ranks of the mesh must ask, in the same order as for others.  A network stays for layers to come as long as the
    default process group does: ranks let go of a layer at different times, and must agree whether there is one already.
    """
    world = distributed_c10d._get_default_group()
    for old in [key for key, found in _NETWORKS.items() if found.world is not world]:
        del _NETWORKS[old]
    key = (mesh.names, mesh.shape, tuple(numbers), timeout)
    if key not in _NETWORKS:
        _NETWORKS[key] = Network(mesh, numbers, watch(numbers, timeout), timeout)
    return _NETWORKS[key]


def processes(mesh: Mesh, devices: DeviceMesh, elastic: bool = False) -> tuple[int, ...]:
    """The numbers of a device mesh's processes in the default process group, row by row.

    Raises MoecError where its axes are not those of `mesh`; with `elastic` the first one may be longer.
    """
    shape = tuple(devices.shape)
    longer = elastic and shape[1:] == mesh.shape[1:] and shape[0] >= mesh.shape[0]
    if devices.mesh_dim_names != mesh.names or (shape != mesh.shape and not longer):
        raise MoecError(
            f"the layer is compiled for the mesh {mesh.name} with axes {_axes(mesh.names, mesh.shape)}; the device "
            f"mesh has {_axes(devices.mesh_dim_names or (), shape)}. Make it with "
            f'`init_device_mesh("cpu", {mesh.shape}, mesh_dim_names={mesh.names})`'
        )
    return tuple(int(number) for number in devices.mesh.flatten())


_COUNTS: Counter[str] = Counter()
_NETWORKS: dict[tuple[tuple[str, ...], tuple[int, ...], tuple[int, ...], float], Network] = {}


def matrix(tensor: torch.Tensor) -> torch.Tensor:
    """The same contiguous memory as `[rows, columns]`."""
    return tensor.view(len(tensor), prod(tensor.shape[1:]))


def _axes(names: Sequence[str], shape: Sequence[int]) -> str:
    return ", ".join(f"{name}[{size}]" for name, size in zip(names, shape, strict=False)) or "no names"
