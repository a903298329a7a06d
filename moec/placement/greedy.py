"""The greedy planner: copies for the busiest experts, the largest load first, then small improvements.

Placing by falling load on the emptiest rank is Graham's LPT rule (1969), at most 4/3 of the optimum without bounds on
slots; giving free slots to whoever has the most tokens a copy is what DeepSeek's EPLB does.  Where experts are
somewhere already, it starts from there, too, and takes a step only if it gains more than it moves.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

from moec.placement.balance import balanced
from moec.placement.problem import Loads, Placement, Problem
from moec.placement.restricted import restricted

_STEPS = 1000
_COLDEST = 4
_TRIED = 6
_GAIN = 1e-9

Holders = tuple[tuple[int, ...], ...]
Change = dict[int, list[int]]
"""The new holders of a few experts."""


@dataclass(frozen=True)
class Greedy:
    """Fast (128 experts on 8 ranks: under a second); no promise how near to the optimum it ends."""

    name: str = "greedy"

    def place(self, problem: Problem) -> Placement:
        """The better of a fresh start and of improving what is there; never worse than what is there."""
        starts = [_fresh(problem)]
        if problem.current is not None and _fits(problem, problem.current.holders):
            starts.append(problem.current.holders)
        found = [_improved(problem, start) for start in starts]
        return min(found, key=problem.cost)


def _fits(problem: Problem, holders: Holders) -> bool:
    """Whether a placement keeps the bounds: those of a past placement may have been others."""
    used = [0] * problem.ranks
    for ranks in holders:
        for rank in ranks:
            used[rank] += 1
    return all(count <= room for count, room in zip(used, problem.slots, strict=True)) and all(
        problem.keeps(expert, ranks) for expert, ranks in enumerate(holders)
    )


def _fresh(problem: Problem) -> Holders:
    """Copies for the experts with the most tokens a copy; then the largest copy first, to the rank with least load."""
    holders = restricted(problem)
    free = list(problem.slots)
    loads = [0.0] * problem.ranks
    number = _copies(problem, holders)
    each = [load / count for load, count in zip(problem.load, number, strict=True)]
    for expert, ranks in enumerate(holders):
        for rank in ranks:
            free[rank] -= 1
            loads[rank] += each[expert]
    missing = [expert for expert, count in enumerate(number) for _ in range(count - len(holders[expert]))]
    for expert in sorted(missing, key=lambda one: (-each[one], one)):
        open_to = [r for r in sorted(problem.open_to(expert)) if free[r] and r not in holders[expert]]
        if open_to:  # a further copy may find only ranks that hold one; the first always finds a place
            rank = min(open_to, key=lambda r: (loads[r], -free[r], r))
            holders[expert].append(rank)
            free[rank] -= 1
            loads[rank] += each[expert]
    return tuple(tuple(sorted(ranks)) for ranks in holders)


def _copies(problem: Problem, given: list[list[int]]) -> list[int]:
    """How many copies each expert gets: free slots go to whoever has the most tokens a copy."""
    number = [max(1, len(ranks)) for ranks in given]
    heap = [(-load / count, expert) for expert, (load, count) in enumerate(zip(problem.load, number, strict=True))]
    heapq.heapify(heap)
    spare = sum(problem.slots) - sum(number)
    while spare and heap:
        tokens, expert = heapq.heappop(heap)
        if number[expert] < min(problem.most_copies, len(problem.open_to(expert))) and tokens < 0:
            number[expert] += 1
            spare -= 1
            heapq.heappush(heap, (-problem.load[expert] / number[expert], expert))
    return number


def _improved(problem: Problem, holders: Holders) -> Placement:
    """Takes the best of the neighbouring placements as long as it is better.

    Neighbours are estimated first, as if the copies of an expert shared its tokens evenly.
    """
    now = balanced(holders, problem.load, problem.ranks)
    for _ in range(_STEPS):
        loads = now.loads(problem.load, problem.ranks)
        legal = [
            change for change in _changes(problem, now, loads) if all(problem.keeps(*item) for item in change.items())
        ]
        changes = sorted(legal, key=lambda change: _estimate(problem, now, loads, change))
        worth = _worth(problem, now)
        for change in changes[:_TRIED]:
            other = balanced(_with(now.holders, change), problem.load, problem.ranks)
            found = _worth(problem, other)
            if found[0] < worth[0] - _GAIN or (found[0] < worth[0] + _GAIN and found[1] < worth[1] * (1 - _GAIN)):
                now = other
                break
        else:
            break
    return now


def _estimate(problem: Problem, now: Placement, loads: Loads, change: Change) -> float:
    after = loads.copy()
    moved = 0
    for expert, ranks in change.items():
        for rank, share in zip(now.holders[expert], now.split[expert], strict=True):
            after[rank] -= share * problem.load[expert]
        for rank in ranks:
            after[rank] += problem.load[expert] / len(ranks)
        if problem.current is not None:
            home = problem.current.holders[expert]
            moved += sum(rank not in home for rank in ranks) - sum(rank not in home for rank in now.holders[expert])
    busiest = float(after.max()) + 1e-3 * float((after**2).sum()) / (float(after.sum()) or 1.0)
    return busiest / (problem.mean or 1.0) + problem.move_cost * moved


def _worth(problem: Problem, placement: Placement) -> tuple[float, float]:
    """What to make small: the cost, and where several ranks are the busiest the unevenness of all."""
    loads = placement.loads(problem.load, problem.ranks) / (problem.mean or 1.0)
    return problem.cost(placement), float((loads**2).sum())


def _changes(problem: Problem, now: Placement, loads: Loads) -> Iterator[Change]:
    """What can be done about the busiest rank: give an expert away, exchange it, or share it with a copy."""
    busiest = int(loads.argmax())
    held = [now.on_rank(rank) for rank in range(problem.ranks)]
    free = [room - len(found) for room, found in zip(problem.slots, held, strict=True)]
    cold_first = sorted((r for r in range(problem.ranks) if r != busiest), key=lambda r: (loads[r], r))
    for expert in held[busiest]:
        ranks = now.holders[expert]
        stays = busiest in problem.pinned.get(expert, frozenset())
        others = [rank for rank in ranks if rank != busiest]
        if others and not stays:
            yield {expert: others}
        open_to = problem.open_to(expert)
        for rank in [r for r in cold_first if r in open_to][:_COLDEST]:
            if rank in ranks or not problem.load[expert]:
                continue
            ways = [] if stays else [[*others, rank]]
            if len(ranks) < problem.most_copies:
                ways.append([*ranks, rank])
            for way in ways:
                if free[rank] > 0:
                    yield {expert: way}
                else:
                    ways_out = [r for r in cold_first if free[r] > 0][:2] + [busiest] * (busiest not in way)
                    for other, goes in _room(problem, now, rank, held[rank], ways_out):
                        yield {expert: way, other: goes}


def _room(
    problem: Problem, now: Placement, rank: int, held: tuple[int, ...], open_to: list[int]
) -> Iterator[tuple[int, list[int]]]:
    """How a full rank can be rid of one expert: of one of several copies, or by sending it where there is room."""
    for other in held:
        if rank in problem.pinned.get(other, frozenset()):
            continue
        elsewhere = [r for r in now.holders[other] if r != rank]
        if elsewhere:
            yield other, elsewhere
        for target in open_to:
            if target not in now.holders[other]:
                yield other, [*elsewhere, target]


def _with(holders: Holders, change: Change) -> Holders:
    found = list(holders)
    for expert, ranks in change.items():
        found[expert] = tuple(sorted(ranks))
    return tuple(found)
