"""Conditions: what they mean, and that what is said about them is true."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import assume, given, settings

from moec.artifact.policy import Combination, Comparison, Condition
from moec.artifact.traffic import Load, Uniform
from moec.diagnostics import Diagnostic, Source
from moec.frontend import load_layer_text
from moec.frontend.layouts import cells
from moec.frontend.layouts.cells import Space, Undecided
from moec.frontend.layouts.measures import bounds_of, space_of
from moec.frontend.model import Layer
from tests.artifact.test_policy import comparisons, conditions

FILE = """edition 1
layer Demo(d = 8, ff = 4, n = 3) {{
  router {router}
  experts routed[8] = swiglu(d, ff)
  tokens {tokens}
  assert n > 0
}}
load Chat {{ batch = 1..512 }}
layout Serve for Demo under Chat {{
  specialise tokens(1..16)
  {statement}
}}
"""


def layer(statement: str, router: str = "softmax_top(2)", tokens: str = "dropless") -> Layer:
    return load_layer_text(Source("demo.moe", FILE.format(router=router, tokens=tokens, statement=statement)))


def read(condition: str) -> Condition:
    layout = layer(f"recompile when {condition} for 9 calls").layout
    assert layout is not None
    return layout.policy.triggers[0].when


A, B, C = Comparison("imbalance", ">", 1.5), Comparison("tokens", "<=", 64), Comparison("memory", ">=", 2.0**31)


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("imbalance > 1.5", A),
        ("1.5 < imbalance", A),
        ("not imbalance <= 1.5", A),
        ("imbalance > n / 2", A),
        ("memory >= 2 GiB", C),
        ("memory >= 2048 MiB", C),
        ("memory >= 2147483648", C),
        ("imbalance > 1.5 and tokens <= 64 and memory >= 2 GiB", Combination("and", (A, B, C))),
        ("imbalance > 1.5 and (tokens <= 64 and memory >= 2 GiB)", Combination("and", (A, B, C))),
        ("not (imbalance <= 1.5 or not (tokens <= 64))", Combination("and", (A, B))),
        ("imbalance > 1.5 and (tokens <= 64 or memory >= 2 GiB)", Combination("and", (A, Combination("or", (B, C))))),
        ("not (imbalance > 1.5 and tokens <= 64 or not memory < 2 GiB)",
         Combination("and", (Combination("or", (Comparison("imbalance", "<=", 1.5), Comparison("tokens", ">", 64))),
                             Comparison("memory", "<", 2.0**31)))),
        ("(imbalance != 2\n  # why\n) or not tokens != 3",
         Combination("or", (Comparison("imbalance", "!=", 2), Comparison("tokens", "==", 3)))),
    ],
)  # fmt: skip
def test_reading(text: str, means: Condition) -> None:
    assert read(text) == means


def test_the_text_of_a_condition_is_one_line() -> None:
    layout = layer("recompile when (imbalance>1.5 # first\n and\n (tokens<=64 or memory>2GiB)) for 9 calls").layout
    assert layout is not None
    assert layout.policy.triggers[0].text == "imbalance > 1.5 and (tokens <= 64 or memory > 2 GiB)"


def codes(warnings: tuple[Diagnostic, ...]) -> list[str]:
    return [one.code for one in warnings]


@pytest.mark.parametrize(
    ("condition", "router", "tokens", "said"),
    [
        ("imbalance > 4", "softmax_top(2)", "dropless", ["W0010"]),
        ("imbalance >= 4", "softmax_top(2)", "dropless", []),
        ("imbalance < 1", "softmax_top(2)", "dropless", ["W0010"]),
        ("imbalance > 4", "top_p(0.5, 2)", "dropless", []),  # slots may be empty, so one expert may have all
        ("imbalance > 8", "top_p(0.5, 2)", "dropless", ["W0010"]),
        ("imbalance > 4", "hash(9, 2)", "dropless", []),  # a table may name an expert twice
        ("share > 0.5", "softmax_top(2)", "dropless", ["W0010"]),
        ("share >= 0.125", "softmax_top(2)", "dropless", ["W0011"]),
        ("empty > 0.75", "softmax_top(2)", "dropless", ["W0010"]),
        ("empty >= 0.75", "softmax_top(2)", "dropless", []),
        ("tokens > 511.5", "softmax_top(2)", "dropless", []),
        ("tokens > 512", "softmax_top(2)", "dropless", ["W0010"]),
        ("overflow > 0", "softmax_top(2)", "dropless", ["W0010"]),
        ("overflow > 0", "softmax_top(2)", "capacity(1.25)", []),
        ("overflow > 0.6875", "softmax_top(2)", "capacity(1.25)", ["W0010"]),
        ("overflow > 0.68", "softmax_top(2)", "capacity(1.25)", []),
        ("overflow > 0", "softmax_top(2)", "capacity(4)", ["W0010"]),
        ("memory >= 0", "softmax_top(2)", "dropless", ["W0011"]),
        ("memory > 900 TiB", "softmax_top(2)", "dropless", ["W0010"]),
        ("memory > 4 KiB", "softmax_top(2)", "dropless", []),
        ("memory > 2 KiB", "softmax_top(2)", "dropless", ["W0011"]),
        ("imbalance == 2 and share != 0.25", "softmax_top(2)", "dropless", ["W0010"]),
        ("share > 0.1875 and imbalance < 1.6", "softmax_top(2)", "dropless", []),
        ("imbalance > 1.5 or share < 0.2", "softmax_top(2)", "dropless", ["W0011"]),
        ("imbalance > 2 and share > 0.2", "softmax_top(2)", "dropless", ["W0012"]),
        ("imbalance > 2 and imbalance > 2", "softmax_top(2)", "dropless", ["W0012"]),
        ("tokens > 9 and (imbalance > 9 or empty > 0.5)", "softmax_top(2)", "dropless", ["W0010"]),
        ("tokens > 9 and (imbalance > 3 or empty > 0.5)", "softmax_top(2)", "dropless", []),
    ],
)
def test_what_is_said(condition: str, router: str, tokens: str, said: list[str]) -> None:
    assert codes(layer(f"recompile when {condition} for 9 calls", router, tokens).warnings) == said


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ("imbalance > 2 for 9 calls", "imbalance > 3 for 9 calls", ["W0013"]),
        ("imbalance > 2 for 9 calls", "imbalance > 3 for 8 calls", []),
        ("imbalance > 2 for 9 calls", "imbalance > 3 for 9 s", []),
        ("imbalance > 2 for 9 s", "imbalance > 3 for 1 min", ["W0013"]),
        ("imbalance > 2 for 9 calls, gain 1.2", "imbalance > 3 for 9 calls", []),
        ("imbalance > 2 for 9 calls, hysteresis 0.2", "imbalance > 3 for 9 calls", []),
        ("imbalance > 2 for 9 calls", "imbalance > 2 for 9 calls", ["W0013"]),
        ("imbalance > 3 and tokens > 5 for 9 calls", "tokens > 4 or imbalance > 3 for 9 calls", ["W0013"]),
        ("share > 0.25 for 9 calls", "imbalance > 2 for 9 calls", ["W0013"]),
    ],
)
def test_what_is_shadowed(first: str, second: str, said: list[str]) -> None:
    assert codes(layer(f"recompile when {first}\n  recompile when {second}").warnings) == said


# Every answer against a search of points: on the numbers of the conditions, between them and at the bounds.

BOUNDS = bounds_of(layer(""), Load("Chat", (1, 50), Uniform()), 1.25)
EXPERTS = 8


def points(measure: str, of: list[Condition]) -> list[Fraction]:
    low, high = BOUNDS[measure].low, BOUNDS[measure].high
    marks = sorted({low, high} | {mark for one in of for mark in marks_of(one, measure) if low <= mark <= high})
    return sorted({*marks, *((a + b) / 2 for a, b in pairwise(marks))})


def marks_of(condition: Condition, measure: str) -> set[Fraction]:
    if isinstance(condition, Combination):
        return set().union(*(marks_of(part, measure) for part in condition.of))
    value = Fraction(repr(condition.value))
    if condition.measure == "share" and measure == "imbalance":
        return {value * EXPERTS}
    return {value} if condition.measure == measure else set()


def holds(condition: Condition, at: dict[str, Fraction]) -> bool:
    if isinstance(condition, Combination):
        return (all if condition.op == "and" else any)(holds(part, at) for part in condition.of)
    here = at["imbalance"] / EXPERTS if condition.measure == "share" else at[condition.measure]
    value = Fraction(repr(condition.value))
    return {
        "<": here < value, "<=": here <= value, ">": here > value, ">=": here >= value, "==": here == value,
        "!=": here != value,
    }[condition.compare]  # fmt: skip


def somewhere(*all_of: Condition, none_of: tuple[Condition, ...] = ()) -> bool:
    used = sorted({"imbalance" if m == "share" else m for one in (*all_of, *none_of) for m in one.measures})
    assume(len(used) <= 3)
    found: list[dict[str, Fraction]] = [{}]
    for measure in used:
        found = [one | {measure: p} for one in found for p in points(measure, [*all_of, *none_of])]
    return any(all(holds(one, at) for one in all_of) and not any(holds(one, at) for one in none_of) for at in found)


@given(conditions, comparisons, comparisons)
@settings(max_examples=200)
def test_answers_are_right(first: Condition, second: Condition, third: Condition) -> None:
    space = space_of(BOUNDS, EXPERTS, [first, second, third])
    assert space.possible(first) == somewhere(first)
    assert space.certain(first) == (not somewhere(none_of=(first,)))
    assert space.possible(first, second) == somewhere(first, second)
    assert space.follows(first, [second]) == (not somewhere(second, none_of=(first,)))
    assert space.covered(first, [second, third]) == (not somewhere(first, none_of=(second, third)))


def test_many_parts() -> None:
    parts = tuple(Comparison("tokens", "!=", float(i)) for i in range(1, 251))
    others = tuple(Comparison("empty", "!=", i / 999) for i in range(1, 251))
    first, second = Combination("and", parts), Combination("and", others)
    space = space_of(BOUNDS, EXPERTS, [first, second])
    assert space.possible(first, second)
    assert not space.follows(second, [first])


def test_a_search_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "MOST_WORK", 9)
    of = Combination(
        "and", tuple(Comparison(m, ">", v) for m, v in (("tokens", 3.0), ("imbalance", 2.0), ("empty", 0.3)))
    )
    space: Space = space_of(BOUNDS, EXPERTS, [of])
    with pytest.raises(Undecided):
        space.possible(of)
    statement = "recompile when empty > 0.3 and memory > 1 and (tokens > 3 or imbalance > 2) for 9 calls"
    assert layer(statement).warnings == ()
