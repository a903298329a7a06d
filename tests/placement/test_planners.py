"""Planners against brute force, their own bounds, and each other."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from moec.errors import PlacementError
from moec.placement.balance import balanced
from moec.placement.greedy import Greedy
from moec.placement.optimal import Optimal
from moec.placement.planner import PLANNERS, plan, planner
from moec.placement.problem import Placement, Problem, copies, drops


@st.composite
def problems(draw: st.DrawFn, most_experts: int = 12, most_ranks: int = 4) -> Problem:
    experts, ranks = draw(st.integers(1, most_experts)), draw(st.integers(1, most_ranks))
    load = tuple(draw(st.lists(st.sampled_from([0.0, 1.0, 2.0, 5.0, 40.0]), min_size=experts, max_size=experts)))
    spare = draw(st.lists(st.integers(0, 2), min_size=ranks, max_size=ranks))
    slots = tuple(-(-experts // ranks) + more for more in spare)
    current = Placement.contiguous(experts, ranks) if draw(st.booleans()) else None
    pinned = {0: frozenset({draw(st.integers(0, ranks - 1))})} if draw(st.booleans()) else {}
    move_cost = draw(st.sampled_from([0.0, 0.01, 1.0]))
    most = draw(st.integers(1, 3))
    allowed, least = {}, {}
    for expert in draw(st.sets(st.integers(1, experts), max_size=3)) - {experts}:
        allowed[expert] = frozenset(draw(st.sets(st.integers(0, ranks - 1), min_size=1)))
    if experts > 1 and draw(st.booleans()):
        room = min(most, ranks, len(allowed.get(1, range(ranks))), sum(slots) - experts + 1)
        least[1] = draw(st.integers(1, max(1, room)))
    return Problem(load, slots, most, pinned, allowed, least, current, move_cost)


def check(problem: Problem, placement: Placement) -> None:
    held = [len(placement.on_rank(rank)) for rank in range(problem.ranks)]
    assert all(count <= room for count, room in zip(held, problem.slots, strict=True))
    assert len(placement.holders) == problem.experts
    assert all(len(ranks) <= problem.most_copies for ranks in placement.holders)
    assert all(ranks <= set(placement.holders[expert]) for expert, ranks in problem.pinned.items())
    assert all(ranks >= set(placement.holders[expert]) for expert, ranks in problem.allowed.items())
    assert all(count <= len(placement.holders[expert]) for expert, count in problem.least.items())
    assert placement.loads(problem.load, problem.ranks).sum() == pytest.approx(sum(problem.load))


@given(problems())
def test_greedy_keeps_the_bounds_and_is_never_worse_than_staying(problem: Problem) -> None:
    try:
        found = Greedy().place(problem)
    except PlacementError:
        assert problem.allowed  # see the next test
        return
    check(problem, found)
    if problem.current is not None and all(map(problem.keeps, range(problem.experts), problem.current.holders)):
        assert problem.cost(found) <= problem.cost(problem.current) + 1e-9


@settings(max_examples=40)
@given(problems(most_experts=6, most_ranks=3))
def test_optimal_is_as_good_as_trying_everything(problem: Problem) -> None:
    assume(len(ways(problem)) ** problem.experts <= 5000 and cheapest(problem) < float("inf"))
    found, bound = Optimal(seconds=20).solve(problem)
    check(problem, found)
    assert problem.cost(found) == pytest.approx(cheapest(problem), abs=1e-4)
    assert bound <= problem.cost(found) + 1e-9


@given(problems(most_experts=5, most_ranks=3))
def test_greedy_finds_a_place_where_there_is_one(problem: Problem) -> None:
    assume(problem.allowed and len(ways(problem)) ** problem.experts <= 5000)
    if cheapest(problem) < float("inf"):
        check(problem, Greedy().place(problem))
    else:
        with pytest.raises(PlacementError, match="finds no slot"):
            Greedy().place(problem)


def ways(problem: Problem) -> list[tuple[int, ...]]:
    """The sets of ranks that may hold an expert."""
    most = min(problem.most_copies, problem.ranks)
    return [ranks for count in range(1, most + 1) for ranks in itertools.combinations(range(problem.ranks), count)]


def cheapest(problem: Problem) -> float:
    """By trying every set of holders."""
    choices = ways(problem)
    everywhere = set(range(problem.ranks))
    options = [
        [
            c
            for c in choices
            if problem.pinned.get(e, set()) <= set(c) <= set(problem.allowed.get(e, everywhere))
            and len(c) >= problem.least.get(e, 1)
        ]
        for e in range(problem.experts)
    ]
    best = float("inf")
    for holders in itertools.product(*options):
        used = [sum(rank in ranks for ranks in holders) for rank in range(problem.ranks)]
        if all(count <= room for count, room in zip(used, problem.slots, strict=True)):
            best = min(best, problem.cost(balanced(holders, problem.load, problem.ranks)))
    return best


def test_skew_is_replicated_away() -> None:
    load = tuple(1 / (number + 1) ** 1.2 for number in range(64))
    contiguous = Placement.contiguous(64, 8)
    problem = Problem(load, (10,) * 8, most_copies=4, current=contiguous, move_cost=0.002)
    for by in (Greedy(), Optimal(seconds=1)):
        found = plan(problem, by)
        assert found.before is not None
        assert found.before > 2.5
        assert found.after < 1.05
        assert 0 < len(found.copies) < 20
        assert "copies travel" in found.text


def test_moves_that_cost_more_than_they_gain_are_left() -> None:
    problem = Problem((3.0, 1.0, 1.0, 1.0), (2, 2), current=Placement.contiguous(4, 2), move_cost=10.0)
    for name in PLANNERS:
        found = plan(problem, planner(name))
        assert not found.copies
        assert not found.drops
        assert found.text.startswith("stay")


def test_copies_and_drops_lead_from_one_placement_to_the_other() -> None:
    draw = random.Random(7)
    for _ in range(50):
        before, after = (
            Placement.even([draw.sample(range(4), draw.randint(1, 3)) for _ in range(10)]) for _ in range(2)
        )
        held = [set(ranks) for ranks in before.holders]
        for copy in copies(before, after):
            assert copy.source in before.holders[copy.expert]
            assert copy.target not in held[copy.expert]
            held[copy.expert].add(copy.target)
        for drop in drops(before, after):
            held[drop.expert].remove(drop.rank)
        assert held == [set(ranks) for ranks in after.holders]


def test_tokens_are_split_so_that_ranks_are_level() -> None:
    found = balanced([(0, 1), (0,), (1,)], [4.0, 3.0, 1.0], 2)
    assert found.loads([4.0, 3.0, 1.0], 2) == pytest.approx([4.0, 4.0])


@pytest.mark.parametrize(
    ("problem", "why"),
    [
        (lambda: Problem((), (1,)), "at least one expert"),
        (lambda: Problem((1.0, 1.0), (1,)), "do not fit"),
        (lambda: Problem((float("nan"),), (1,)), "finite"),
        (lambda: Problem((1.0,), (1,), most_copies=0), "at least one copy"),
        (lambda: Problem((1.0,), (1,), pinned={3: frozenset({0})}), "expert 3 is pinned"),
        (lambda: Problem((1.0,), (1,), pinned={0: frozenset({4})}), "cannot be pinned"),
        (lambda: Problem((1.0, 1.0), (1, 1), pinned={0: frozenset({0}), 1: frozenset({0})}), "has 1 slots"),
        (lambda: Problem((1.0,), (1,), allowed={1: frozenset({0})}), "no expert 1"),
        (lambda: Problem((1.0,), (1,), allowed={0: frozenset()}), "cannot be on ranks"),
        (lambda: Problem((1.0,), (1, 1), allowed={0: frozenset({2})}), "cannot be on ranks"),
        (lambda: Problem((1.0,), (1, 1), 2, allowed={0: frozenset({1})}, least={0: 2}), "2 copies on 1 ranks"),
        (lambda: Problem((1.0,), (1, 1), least={0: 2}), "of 1 at most"),
        (lambda: Problem((1.0, 1.0), (1, 1), 2, least={0: 2}), "do not fit into 2 slots"),
        (lambda: Problem((1.0,), (1,), current=Placement.contiguous(2, 1)), "other experts"),
        (lambda: Placement(((),), ((),)), "at least one"),
        (lambda: Placement(((0, 1),), ((0.5, 0.6),)), "add up to 1"),
        (lambda: planner("best"), "the planners are: greedy, optimal"),
    ],
)
def test_what_cannot_be_placed_is_said(problem: object, why: str) -> None:
    with pytest.raises(PlacementError, match=why):
        problem()  # type: ignore[operator]
