"""Placement tables: in which slot of which position every copy of every expert lies.

Expert parallelism runs over **positions** (the ranks along the expert axes of a layout, counted row-major), and each of
them has the same number of **slots**, each of which holds the weights of one expert or nothing.  Programs are compiled
for slots; which expert lies in which is data, so that experts move without compiling.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from moec.errors import PlacementError
from moec.placement.lookup import Ints, Lookup, flows
from moec.placement.problem import Copy, Placement, copies


@dataclass(frozen=True)
class Arrival:
    """One expert's weights travel from a slot of one position to a slot of another.

    staged  whether another expert lies in that slot until the new table is in force, so that what arrives must wait
    """

    expert: int
    source: int
    source_slot: int
    target: int
    target_slot: int
    staged: bool


@dataclass(frozen=True)
class Table:
    """Where every copy of every expert is.

    placement  for each expert the positions that hold a copy, and how they share its tokens
    places     for each expert the slot of each of its copies, in the order of `placement.holders`
    slots      how many slots each position has
    grid       the sizes of the expert axes, outermost first; their product is the number of positions.  Positions that
               differ in an inner axis alone are near each other

    Raises PlacementError where two copies would share a slot, or where one is not there.
    """

    placement: Placement
    places: tuple[tuple[int, ...], ...]
    slots: int
    grid: tuple[int, ...]

    def __post_init__(self) -> None:
        _check_grid(self.grid, self.slots)
        taken: set[tuple[int, int]] = set()
        if len(self.places) != len(self.placement.holders):
            raise PlacementError(f"{len(self.placement.holders)} experts have holders and {len(self.places)} slots")
        for expert, (holders, places) in enumerate(zip(self.placement.holders, self.places, strict=True)):
            if len(holders) != len(places):
                raise PlacementError(f"expert {expert} has {len(holders)} copies and {len(places)} slots")
            for at in zip(holders, places, strict=True):
                if at in taken or at[0] >= self.positions or not 0 <= at[1] < self.slots:
                    raise PlacementError(f"expert {expert} cannot lie in slot {at[1]} of position {at[0]}")
                taken.add(at)

    @classmethod
    def first(cls, placement: Placement, slots: int, grid: tuple[int, ...]) -> Table:
        """A table where nothing is yet: at every position slots are filled in the order of experts.

        Raises PlacementError where a position holds more than `slots` experts.
        """
        return _filled(placement, slots, grid, {})

    def following(self, placement: Placement, slots: int | None = None, grid: tuple[int, ...] | None = None) -> Table:
        """The table of `placement` that follows this one: a copy that stays keeps its slot.

        What is new takes slots that are free here already, and only then such as lose their expert.  With another
        number of slots or another grid, copies stay at the positions of the same numbers.
        """
        slots, grid = self.slots if slots is None else slots, self.grid if grid is None else grid
        if len(placement.holders) != self.experts:
            raise PlacementError(f"a table of {self.experts} experts cannot be followed by {len(placement.holders)}")
        here = {
            (expert, holder): place
            for expert, (holders, places) in enumerate(zip(self.placement.holders, self.places, strict=True))
            for holder, place in zip(holders, places, strict=True)
        }
        return _filled(placement, slots, grid, here)

    @property
    def experts(self) -> int:
        return len(self.places)

    @property
    def positions(self) -> int:
        return math.prod(self.grid)

    @cached_property
    def held(self) -> Ints:
        """The expert in every slot of every position, int32 `[positions, slots]`; -1 where there is none."""
        found = np.full((self.positions, self.slots), -1, np.int32)
        for expert, (holders, places) in enumerate(zip(self.placement.holders, self.places, strict=True)):
            found[list(holders), list(places)] = expert
        found.setflags(write=False)
        return found

    def slot(self, expert: int, position: int) -> int:
        """Where `position` holds `expert`; -1 where it does not."""
        holders = self.placement.holders[expert]
        return self.places[expert][holders.index(position)] if position in holders else -1

    def lookup(self, position: int) -> Lookup:
        """Where the tokens of `position` go."""
        most = max(len(holders) for holders in self.placement.holders)
        holder, slot = np.full((2, self.experts, most), -1, np.int32)
        below = np.full((self.experts, most - 1), Lookup.TURNS, np.int32)
        for expert, (holders, places) in enumerate(zip(self.placement.holders, self.places, strict=True)):
            holder[expert, : len(holders)] = holders
            slot[expert, : len(places)] = places
            if len(holders) > 1:
                shares = flows(holders, self.placement.split[expert], self.grid)[position]
                below[expert, : len(holders) - 1] = np.round(np.cumsum(shares)[:-1] * Lookup.TURNS)
        return Lookup(position, holder, slot, below)

    def arrivals(self, old: Table) -> tuple[Arrival, ...]:
        """What has to travel from where it lies in `old` before this table can be in force."""
        return tuple(self._arrival(old, copy) for copy in copies(old.placement, self.placement))

    def _arrival(self, old: Table, copy: Copy) -> Arrival:
        slot = self.slot(copy.expert, copy.target)
        staged = copy.target < old.positions and slot < old.slots and old.held[copy.target, slot] >= 0
        return Arrival(copy.expert, copy.source, old.slot(copy.expert, copy.source), copy.target, slot, bool(staged))


def _check_grid(grid: tuple[int, ...], slots: int) -> None:
    if not grid or min(grid) < 1 or slots < 1:
        raise PlacementError(f"there must be positions and slots, not a grid of {grid} with {slots} slots each")


def _filled(placement: Placement, slots: int, grid: tuple[int, ...], here: dict[tuple[int, int], int]) -> Table:
    """Slots for all copies: where one is `here` already, it stays; others take slots that nothing was in first."""
    _check_grid(grid, slots)
    positions = math.prod(grid)
    used = [{place for (_, at), place in here.items() if at == position} for position in range(positions)]
    kept = [
        {here[expert, at] for expert in placement.on_rank(at) if here.get((expert, at), slots) < slots}
        for at in range(positions)
    ]
    free = [
        [place for place in range(slots) if place not in used[at]]
        + [place for place in range(slots) if place in used[at] - kept[at]]
        for at in range(positions)
    ]
    places = []
    for expert, holders in enumerate(placement.holders):
        found = []
        for at in holders:
            if at >= positions:
                raise PlacementError(f"expert {expert} cannot be at position {at} of {positions}")
            stays = here.get((expert, at), slots)
            if stays < slots:
                found.append(stays)
            elif free[at]:
                found.append(free[at].pop(0))
            else:
                raise PlacementError(f"position {at} has {slots} slots, and holds more experts than that")
        places.append(tuple(found))
    return Table(placement, tuple(places), slots, grid)
