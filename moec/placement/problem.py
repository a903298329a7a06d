"""What a placement of experts is, what it costs, and how one becomes another.

A rank holds copies of experts; an expert that has several copies shares its tokens among them.  The time of a step is
that of the busiest rank, so what counts is the **imbalance**, the largest load of a rank over the mean (1 is perfect).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from moec.errors import PlacementError

Loads = NDArray[np.float64]

_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Placement:
    """Where every expert is.

    holders   for each expert the ranks that hold a copy, ascending, at least one
    split     for each expert the share of its tokens that goes to each of its holders; they add up to 1
    """

    holders: tuple[tuple[int, ...], ...]
    split: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        if len(self.holders) != len(self.split):
            raise PlacementError(f"{len(self.holders)} experts have holders and {len(self.split)} a split")
        for expert, (ranks, shares) in enumerate(zip(self.holders, self.split, strict=True)):
            if not ranks or list(ranks) != sorted(set(ranks)) or ranks[0] < 0:
                raise PlacementError(f"expert {expert}: its ranks must be ascending and at least one, not {ranks}")
            if len(shares) != len(ranks) or min(shares) < 0 or not math.isclose(sum(shares), 1, abs_tol=_TOLERANCE):
                raise PlacementError(f"expert {expert}: shares {shares} of {len(ranks)} copies do not add up to 1")

    @classmethod
    def even(cls, holders: Sequence[Sequence[int]]) -> Placement:
        """Every copy of an expert takes the same share."""
        ranks = tuple(tuple(sorted(found)) for found in holders)
        return cls(ranks, tuple((1 / len(found),) * len(found) if found else () for found in ranks))

    @classmethod
    def contiguous(cls, experts: int, ranks: int) -> Placement:
        """Neighbours together, as expert parallelism starts; the first ranks hold one more where it does not divide."""
        each, more = divmod(experts, ranks)
        return cls.even([[rank] for rank in range(ranks) for _ in range(each + (rank < more))])

    def on_rank(self, rank: int) -> tuple[int, ...]:
        """The experts of which `rank` holds a copy, ascending."""
        return tuple(expert for expert, ranks in enumerate(self.holders) if rank in ranks)

    def loads(self, load: Sequence[float], ranks: int) -> Loads:
        """The load of every rank, `[ranks]`, where `load` is that of every expert."""
        found = np.zeros(ranks)
        for each, holders, shares in zip(load, self.holders, self.split, strict=True):
            for rank, share in zip(holders, shares, strict=True):
                found[rank] += each * share
        return found

    def imbalance(self, load: Sequence[float], ranks: int) -> float:
        """The busiest rank's load over the mean; 1 where there is no load at all."""
        found = self.loads(load, ranks)
        mean = float(found.mean())
        return float(found.max()) / mean if mean else 1.0


@dataclass(frozen=True)
class Problem:
    """Experts to place.

    load         how many tokens each expert takes, in any unit
    slots        how many copies each rank has memory for
    most_copies  how many copies an expert may have; 1: no replication
    pinned       ranks on which an expert must stay, by its number
    allowed      ranks outside of which an expert must not be, by its number; others may be anywhere
    least        how many copies an expert must have, by its number; others one
    current      where experts are now; None where nothing is placed yet, so that nothing has to move
    move_cost    what one copied expert costs, in units of imbalance: the seconds that it takes the links, over the
                 seconds of the steps until the load will have changed again
    """

    load: tuple[float, ...]
    slots: tuple[int, ...]
    most_copies: int = 1
    pinned: Mapping[int, frozenset[int]] = field(default_factory=dict)
    allowed: Mapping[int, frozenset[int]] = field(default_factory=dict)
    least: Mapping[int, int] = field(default_factory=dict)
    current: Placement | None = None
    move_cost: float = 0.0

    def __post_init__(self) -> None:
        if not self.load or not self.slots:
            raise PlacementError("there must be at least one expert and one rank")
        if any(not math.isfinite(each) or each < 0 for each in self.load):
            raise PlacementError("the load of an expert must be a finite number, not below 0")
        if min(self.slots) < 0 or sum(self.slots) < len(self.load):
            raise PlacementError(
                f"{len(self.load)} experts do not fit into {sum(self.slots)} slots on {len(self.slots)} ranks"
            )
        if self.most_copies < 1 or not math.isfinite(self.move_cost) or self.move_cost < 0:
            raise PlacementError("an expert needs at least one copy, and a move cannot cost less than 0")
        self._check_pins()
        self._check_copies()
        if self.current is not None:
            self._check_current(self.current)

    @property
    def experts(self) -> int:
        return len(self.load)

    @property
    def ranks(self) -> int:
        return len(self.slots)

    @cached_property
    def mean(self) -> float:
        """The load of a rank if all had the same."""
        return sum(self.load) / self.ranks

    def cost(self, placement: Placement) -> float:
        """Imbalance, plus what the moves from the current placement cost."""
        return placement.imbalance(self.load, self.ranks) + self.move_cost * len(copies(self.current, placement))

    def keeps(self, expert: int, holders: Collection[int]) -> bool:
        """Whether an expert may be on these ranks alone."""
        return (
            self.needs(expert) <= len(holders) <= self.most_copies
            and self.pinned.get(expert, frozenset()) <= set(holders)
            and (expert not in self.allowed or self.allowed[expert] >= set(holders))
        )

    def needs(self, expert: int) -> int:
        """How many copies an expert must have."""
        return max(1, self.least.get(expert, 1), len(self.pinned.get(expert, ())))

    def open_to(self, expert: int) -> frozenset[int]:
        """The ranks on which an expert may be."""
        return self.allowed.get(expert, self._all)

    @cached_property
    def _all(self) -> frozenset[int]:
        return frozenset(range(self.ranks))

    def _check_copies(self) -> None:
        for expert in (*self.allowed, *self.least):
            if not 0 <= expert < self.experts:
                raise PlacementError(f"there are {self.experts} experts, and no expert {expert}")
            ranks = self.open_to(expert)
            if not ranks or not self._all >= ranks >= self.pinned.get(expert, frozenset()):
                raise PlacementError(f"expert {expert} cannot be on ranks {sorted(ranks)} alone")
            if self.needs(expert) > min(self.most_copies, len(ranks)):
                raise PlacementError(
                    f"expert {expert} cannot have {self.needs(expert)} copies on {len(ranks)} ranks, of "
                    f"{self.most_copies} at most"
                )
        if sum(map(self.needs, range(self.experts))) > sum(self.slots):
            raise PlacementError(f"the copies that experts must have do not fit into {sum(self.slots)} slots")

    def _check_pins(self) -> None:
        pinned_to = [0] * self.ranks
        for expert, ranks in self.pinned.items():
            if not 0 <= expert < self.experts:
                raise PlacementError(f"expert {expert} is pinned, and there are {self.experts}")
            if not ranks or not all(0 <= rank < self.ranks for rank in ranks) or len(ranks) > self.most_copies:
                raise PlacementError(f"expert {expert} cannot be pinned to ranks {sorted(ranks)}")
            for rank in ranks:
                pinned_to[rank] += 1
        for rank, (wanted, room) in enumerate(zip(pinned_to, self.slots, strict=True)):
            if wanted > room:
                raise PlacementError(f"{wanted} experts are pinned to rank {rank}, which has {room} slots")
        free = sum(self.slots) - sum(pinned_to)
        if free < self.experts - len(self.pinned):
            raise PlacementError(f"pinned copies leave {free} slots for {self.experts - len(self.pinned)} experts")

    def _check_current(self, current: Placement) -> None:
        if len(current.holders) != self.experts or any(ranks[-1] >= self.ranks for ranks in current.holders):
            raise PlacementError("the current placement is one of other experts or ranks")


@dataclass(frozen=True)
class Copy:
    """One expert's weights travel from a rank that holds them to one that will."""

    expert: int
    source: int
    target: int


@dataclass(frozen=True)
class Drop:
    """A rank forgets an expert."""

    expert: int
    rank: int


def copies(current: Placement | None, wanted: Placement) -> tuple[Copy, ...]:
    """What has to travel, each from the holder that sends least so far; nothing where nothing was placed."""
    if current is None:
        return ()
    sent: dict[int, int] = {}
    found = []
    for expert, (before, after) in enumerate(zip(current.holders, wanted.holders, strict=True)):
        for target in sorted(set(after) - set(before)):
            source = min(before, key=lambda rank: (sent.get(rank, 0), rank))
            sent[source] = sent.get(source, 0) + 1
            found.append(Copy(expert, source, target))
    return tuple(found)


def drops(current: Placement | None, wanted: Placement) -> tuple[Drop, ...]:
    """What ranks may forget once everything has travelled."""
    if current is None:
        return ()
    return tuple(
        Drop(expert, rank)
        for expert, (before, after) in enumerate(zip(current.holders, wanted.holders, strict=True))
        for rank in before
        if rank not in after
    )
