"""Where one rank sits in a mesh: with whom it exchanges what, and which part of its tokens is its own to compute."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from moec.artifact.parallel import Parallel
from moec.errors import MoecError
from moec.runtime.parallel.departure import Rules, Unit
from moec.schedule.mesh import Mesh
from moec.schedule.steps import Schedule, Wiring


@dataclass(frozen=True)
class Seat:
    """A rank of a layout's mesh, for one schedule."""

    parallel: Parallel
    wiring: Wiring
    schedule: Schedule
    rank: int

    @property
    def mesh(self) -> Mesh:
        return self.parallel.mesh

    @cached_property
    def hops(self) -> tuple[tuple[str, ...], ...]:
        """The axes of each hop of dispatch; one hop without axes where whole experts lie everywhere.

        Raises MoecError for more than two.
        """
        if len(self.schedule.hops) > 2:
            raise MoecError("an exchange has two hops at most")
        return self.schedule.hops or ((),)

    @cached_property
    def grid(self) -> tuple[int, ...]:
        """Positions of each hop."""
        return tuple(self.mesh.size(axes) for axes in self.hops)

    @cached_property
    def shares(self) -> int:
        """Over how many ranks tokens that are the same are spread."""
        return self.mesh.size(self.wiring.same)

    def share(self, tokens: int) -> tuple[int, int]:
        """Begin and end of this rank's own tokens among those that it was given."""
        at = self.mesh.position(self.rank, self.wiring.same)
        return tokens * at // self.shares, tokens * (at + 1) // self.shares

    @property
    def tp(self) -> int:
        """Over how many ranks each expert's hidden dimension is cut."""
        return self.mesh.size(self.wiring.tp)

    @cached_property
    def rules(self) -> Rules:
        """How this rank's tokens become messages."""
        return Rules(
            grid=self.grid,
            slots=self.parallel.slots,
            position=self.parallel.position(self.rank),
            chunks=self.schedule.chunks,
            by_tokens=self.schedule.split == "tokens",
            deduplicate=self.schedule.deduplicate,
            local_first=self.schedule.local_first,
            unit=self._unit,
        )

    @property
    def _unit(self) -> Unit:
        partial = self.parallel.partial
        if partial is None:
            return "pair"
        # With one hop a message is for one rank; with two, the outer one's are for all ranks of a node.
        return "row" if len(self.hops) == 1 or partial in self.hops[0] else "rank"
