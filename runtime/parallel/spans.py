"""One layer on more or fewer of its ranks: the same pieces and schedule, on meshes that differ in their first axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from moec.artifact.parallel import Parallel
from moec.errors import MoecError
from moec.runtime.parallel.engine import Engine
from moec.runtime.parallel.network import network
from moec.runtime.parallel.pieces import Pieces
from moec.schedule.mesh import Mesh
from moec.schedule.steps import Schedules


class Spans:
    """The engines of a layer, by how long the first axis of the mesh is; made when they are first asked for.

    inputs   names of the layer's inputs, in order
    numbers  all ranks, of the longest mesh, as the default process group numbers them, row by row
    timeout  seconds
    """

    def __init__(
        self,
        parallel: Parallel,
        schedules: Schedules,
        pieces: Pieces,
        inputs: Sequence[str],
        numbers: Sequence[int],
        timeout: float,
    ) -> None:
        """Raises MoecError where there are more ranks than the layout's, and its first axis cannot be longer."""
        if len(numbers) != parallel.mesh.ranks:
            _check(parallel)
        self._parallel, self._schedules, self._pieces, self._inputs = parallel, schedules, pieces, tuple(inputs)
        self._numbers, self._timeout = tuple(numbers), timeout
        self._made: dict[int, Engine] = {}

    def engine(self, length: int) -> Engine:
        """On the first ranks, of which this must be one: they all ask, in the same order as for others.

        Raises IndexError for more ranks than there are, and RuntimeError where a rank does not ask.
        """
        found = self._made.get(length)
        if found is None:
            mesh = lengthened(self._parallel.mesh, length)
            if not 0 < mesh.ranks <= len(self._numbers):
                raise IndexError(f"{mesh.ranks} ranks of {len(self._numbers)}")
            parallel = replace(self._parallel, mesh=mesh)
            net = network(mesh, self._numbers[: mesh.ranks], self._timeout)
            found = self._made[length] = Engine(parallel, self._schedules, self._pieces, self._inputs, net)
        return found


def _check(parallel: Parallel) -> None:
    first = parallel.mesh.names[0]
    cut = {axis for one in (parallel.routed, *parallel.shared) for axis in one.tp}
    if first not in parallel.routed.ep or first not in parallel.tokens or first in cut:
        raise MoecError(
            f"the axis {first} of {parallel.mesh.name} cannot be longer than in the layout {parallel.layout}: an "
            "elastic mesh needs a first axis over which the routed experts and the tokens are cut, and nothing else"
        )


def lengthened(mesh: Mesh, length: int) -> Mesh:
    """The mesh with so many positions along its first axis."""
    first, *rest = mesh.axes
    return replace(mesh, axes=(replace(first, size=length), *rest))
