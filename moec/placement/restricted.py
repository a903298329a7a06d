"""Places for the experts that cannot be anywhere, or that need several."""

from __future__ import annotations

from moec.errors import PlacementError
from moec.placement.problem import Problem


def restricted(problem: Problem) -> list[list[int]]:
    """For each expert the ranks of its pinned copies, and of as many as it needs where it is not allowed anywhere or
    needs several; none for all others.

    Each copy goes where there is least; one that finds no slot makes others go along a path (Kuhn's algorithm for
    matchings), so that a place for all is found if there is one.  Raises PlacementError where there is none.
    """
    holders = [sorted(problem.pinned.get(expert, ())) for expert in range(problem.experts)]
    free = list(problem.slots)
    loads = [0.0] * problem.ranks
    for expert, ranks in enumerate(holders):
        for rank in ranks:
            free[rank] -= 1
            loads[rank] += problem.load[expert] / problem.needs(expert)
    bound = [expert for expert in range(problem.experts) if expert in problem.allowed or problem.needs(expert) > 1]
    for expert in sorted(bound, key=lambda one: (len(problem.open_to(one)), -problem.load[one], one)):
        for _ in range(problem.needs(expert) - len(holders[expert])):
            wanted = sorted(problem.open_to(expert), key=lambda rank: (not free[rank], loads[rank], rank))
            rank = _make_room(problem, holders, free, expert, wanted)
            free[rank] -= 1
            loads[rank] += problem.load[expert] / problem.needs(expert)
    return holders


def _make_room(problem: Problem, holders: list[list[int]], free: list[int], expert: int, wanted: list[int]) -> int:
    """Give `expert` one more rank; returns the one whose free slot that takes, where others went out of the way."""
    came = {rank: (expert, -1) for rank in wanted if rank not in holders[expert]}  # who comes, from where
    queue = list(came)
    for rank in queue:
        if free[rank]:
            at = rank
            while at >= 0:
                mover, before = came[at]
                if before >= 0:
                    holders[mover].remove(before)
                holders[mover] = sorted([*holders[mover], at])
                at = before
            return rank
        for other, ranks in enumerate(holders):
            if rank not in ranks or rank in problem.pinned.get(other, ()):
                continue
            for further in sorted(problem.open_to(other) - set(ranks)):
                if further not in came:
                    came[further] = (other, rank)
                    queue.append(further)
    raise PlacementError(f"expert {expert} finds no slot on ranks {sorted(problem.open_to(expert))}")
