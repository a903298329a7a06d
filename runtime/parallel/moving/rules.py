"""What a layout says of where experts may be while layers run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

from moec.artifact.parallel import Parallel
from moec.errors import PlacementError
from moec.placement.problem import Placement, Problem


@dataclass(frozen=True)
class Pinned:
    """Experts that are, with all their copies, at position `index` of dimension `axis` of a table's grid."""

    experts: tuple[int, ...]
    axis: int
    index: int


@dataclass(frozen=True)
class Rules:
    """What plans have to keep.

    most_copies  an expert may have
    least        how many copies experts must have, by number; others one
    room         how many experts each position may hold; None: as many as it has slots.  Of this number of positions
    gain         how many times as small the imbalance must become
    planner      its name
    everywhere   all experts are at all positions
    """

    most_copies: int = 1
    pins: tuple[Pinned, ...] = ()
    least: Mapping[int, int] = field(default_factory=dict)
    room: tuple[int, ...] | None = None
    gain: float = 1.05
    planner: str = "greedy"
    everywhere: bool = False

    @classmethod
    def of(cls, parallel: Parallel) -> Rules:
        """Pins are kept, and the copies of experts that are named.

        `replicate hottest(...)` says how many copies there may be: which experts have them follows the load.  Where
        `counts` bounds what each position has, it stays bounded.
        """
        axes = parallel.routed.ep
        counted = parallel.routed.counts is not None
        return cls(
            max((one.copies for one in parallel.replicate), default=1),
            tuple(Pinned(pin.experts, axes.index(pin.axis), pin.index) for pin in parallel.pins),
            {expert: one.copies for one in parallel.replicate if one.hottest is None for expert in one.experts},
            tuple(len(parallel.held(at)) for at in range(parallel.positions)) if counted else None,
        )

    def problem(
        self, load: tuple[float, ...], slots: int, grid: tuple[int, ...], current: Placement | None, move_cost: float
    ) -> Problem:
        """Where experts should be, with so many slots at each position of a grid.

        Raises PlacementError where the rules cannot be kept there.
        """
        positions = prod(grid)
        bounded = self.room is not None and len(self.room) == positions
        return Problem(
            load,
            self.room if self.room is not None and bounded else (slots,) * positions,
            min(self.most_copies, positions),
            allowed=self._allowed(grid),
            least={expert: min(count, positions) for expert, count in self.least.items()},
            current=current,
            move_cost=move_cost,
        )

    def _allowed(self, grid: tuple[int, ...]) -> dict[int, frozenset[int]]:
        found: dict[int, frozenset[int]] = {}
        for pin in self.pins:
            if pin.axis >= len(grid) or pin.index >= grid[pin.axis]:
                raise PlacementError(f"experts are pinned to position {pin.index} of an axis that a grid {grid} lacks")
            inner = prod(grid[pin.axis + 1 :])
            there = frozenset(at for at in range(prod(grid)) if at // inner % grid[pin.axis] == pin.index)
            for expert in pin.experts:
                found[expert] = found.get(expert, there) & there
        return found
