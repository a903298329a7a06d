"""Where every routed expert lies at first: neighbours together, pins kept, copies far apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod


@dataclass
class NoRoom(Exception):
    """These experts must all lie at these positions, which have fewer places."""

    experts: tuple[int, ...]
    positions: tuple[int, ...]


def place(
    counts: Sequence[int],
    allowed: Mapping[int, frozenset[int]],
    copies: Mapping[int, int],
    load: Sequence[float],
    sizes: Sequence[int],
) -> tuple[tuple[int, ...], ...]:
    """For each expert the positions that have a copy, ascending.

    counts   how many experts each position has, each counted once; their sum is the number of experts
    allowed  the positions of pinned experts, with all their copies
    copies   of experts that have more than one; no more than there are positions that are allowed
    load     how much is chosen of every expert
    sizes    of the axes along which positions count, the last fastest; copies lie apart along the first if possible

    Raises NoRoom where pinned experts do not fit.
    """
    first = _first(counts, allowed)
    inner = [prod(sizes[i + 1 :]) for i in range(len(sizes))]
    held = list(counts)
    busy = [0.0] * len(counts)
    for expert, position in enumerate(first):
        busy[position] += load[expert] / copies.get(expert, 1)
    holders = [[position] for position in first]
    for expert in sorted(copies, key=lambda e: (-load[e] / copies[e], e)):
        for _ in range(copies[expert] - 1):
            free = [p for p in allowed.get(expert, range(len(counts))) if p not in holders[expert]]

            def near(p: int, at: Sequence[int] = holders[expert]) -> list[int]:
                return [sum(p // size == q // size for q in at) for size in inner]

            chosen = min(free, key=lambda p: (near(p), held[p], busy[p], p))
            holders[expert].append(chosen)
            held[chosen] += 1
            busy[chosen] += load[expert] / copies[expert]
    return tuple(tuple(sorted(one)) for one in holders)


def _first(counts: Sequence[int], allowed: Mapping[int, frozenset[int]]) -> list[int]:
    """One position for each expert: that of its neighbours if it may lie there."""
    ends = list(accumulate(counts))
    usual = [position for position, count in enumerate(counts) for _ in range(count)]
    matching = _Matching(counts, allowed)
    for expert in sorted(allowed, key=lambda e: (len(allowed[e]), e)):
        matching.add(expert, usual[expert])
    rest = (p for p, count in enumerate(counts) for _ in range(count - len(matching.at[p])))
    position_of = {expert: p for p, experts in enumerate(matching.at) for expert in experts}
    return [position_of[e] if e in position_of else next(rest) for e in range(ends[-1])]


class _Matching:
    """Pinned experts at positions with bounded room; one more may move others along a path (Kuhn's algorithm)."""

    def __init__(self, counts: Sequence[int], allowed: Mapping[int, frozenset[int]]) -> None:
        self._counts = counts
        self._allowed = allowed
        self.at: list[list[int]] = [[] for _ in counts]

    def add(self, expert: int, usual: int) -> None:
        """Find a place, at the usual position if possible.  Raises NoRoom."""
        start = sorted(self._allowed[expert], key=lambda p: (p != usual, p))
        came: dict[int, tuple[int, int]] = dict.fromkeys(start, (expert, -1))  # position: who comes, from where
        queue = list(start)
        for position in queue:
            if len(self.at[position]) < self._counts[position]:
                self._move(came, position)
                return
            for other in self.at[position]:
                for further in sorted(self._allowed[other]):
                    if further not in came:
                        came[further] = (other, position)
                        queue.append(further)
        # With those whose turn has not come.
        experts = [one for one in sorted(self._allowed) if self._allowed[one] <= came.keys()]
        raise NoRoom(tuple(experts), tuple(sorted(came)))

    def _move(self, came: Mapping[int, tuple[int, int]], position: int) -> None:
        while position >= 0:
            expert, before = came[position]
            self.at[position].append(expert)
            if before >= 0:
                self.at[before].remove(expert)
            position = before
